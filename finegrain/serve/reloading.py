"""Changes the plan of a running gallery: encodes its pictures in the background, then switches."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from starlette.concurrency import run_in_threadpool

from finegrain.encoder import Encoder
from finegrain.errors import FinegrainError, GalleryError
from finegrain.gallery import Gallery, Reindexed
from finegrain.gallery.sqlite.reindex import EncodedPictures
from finegrain.plan import Plan
from finegrain.search.searcher import Searcher
from finegrain.serve.collection import Collection
from finegrain.serve.problems import ServiceError

RETIRED_SECONDS = 60.0
"""Seconds after which the searcher of the old plan is closed; requests may still read from it."""

_ATTEMPTS = 1200
"""Attempts to enter the full queue of a worker, 0.05 seconds apart."""

_log = logging.getLogger("finegrain.serve")

Stage = Literal["idle", "checking", "encoding", "switching", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a reload is.

    Attributes:
        stage: ``failed`` leaves the old plan in use.
        encoded: Pictures that were encoded with the new plan by this reload.
        pictures: Pictures of the gallery.
        fault: Why it failed.
    """

    stage: Stage = "idle"
    encoded: int = 0
    pictures: int = 0
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a searcher comes from.

    Attributes:
        plan: Path of its plan.
        reopen: Opens it again.
    """

    plan: Path
    reopen: Callable[[], Searcher]


class Reloader:
    """Reloads the plan of one gallery from its file.

    Args:
        collection: The gallery.
        source: The file of the plan, which is replaced by a new one, and how to open it.
    """

    def __init__(self, collection: Collection, source: Source) -> None:
        self._collection = collection
        self._source = source
        self._retired: list[Searcher] = []
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.progress = Progress()

    def start(self, *, drop_unreadable: bool) -> Progress:
        """Begin to reload.

        Raises:
            ServiceError: A reload runs already, or the gallery is on Milvus.
        """
        if self._task is not None and not self._task.done():
            raise ServiceError(HTTPStatus.CONFLICT, "A reload of this gallery runs already.")
        if not isinstance(self._collection.gallery.path, Path):
            raise ServiceError(
                HTTPStatus.CONFLICT,
                "A gallery on Milvus is encoded again with finegrain index --reindex; then start "
                "the service again.",
            )
        self.progress = Progress(stage="checking")
        self._task = asyncio.create_task(self._reload(drop_unreadable=drop_unreadable))
        return self.progress

    async def close(self) -> None:
        """Stop; pictures that were encoded are kept for the next reload."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await run_in_threadpool(self._close_retired)

    async def _reload(self, *, drop_unreadable: bool) -> None:
        pause = _Pause(self._collection)
        try:
            searcher = await run_in_threadpool(
                partial(self._switched, pause, drop_unreadable=drop_unreadable)
            )
            self._retired.append(self._collection.replace(searcher))
            self.progress = replace(self.progress, stage="done")
            asyncio.get_running_loop().call_later(RETIRED_SECONDS, self._close_retired)
        except Exception as error:
            if not isinstance(error, FinegrainError):
                _log.exception("the plan was not reloaded")
            self.progress = replace(self.progress, stage="failed", fault=str(error))
        finally:
            pause.end()

    def _switched(self, pause: _Pause, *, drop_unreadable: bool) -> Searcher:
        """Encode all pictures with the new plan, switch the gallery, and open a searcher."""
        plan = Plan(self._source.plan)
        encoder = Encoder.from_plan(plan)
        try:
            encoder.encode_texts(["person"])  # a plan that cannot run must not be switched to
            with Gallery(self._collection.gallery.path, create=False) as gallery:
                self.progress = Progress(stage="encoding", pictures=len(gallery))

                def before_switch() -> None:
                    self.progress = replace(self.progress, stage="switching")
                    pause.begin()

                done = gallery.reindex(
                    _Counting(encoder, self._count),
                    plan.manifest.fingerprint,
                    drop_unreadable=drop_unreadable,
                    progress=False,
                    before_switch=before_switch,
                )
        finally:
            encoder.close()
        self._check(done)
        pause.begin()
        return self._source.reopen()

    @staticmethod
    def _check(done: Reindexed) -> None:
        if not done.switched:
            raise GalleryError(str(done))

    def _close_retired(self) -> None:
        while self._retired:
            self._retired.pop().close()

    def _count(self, number: int) -> None:
        if self._is_stopping:
            raise GalleryError("the service is stopping; what was encoded is kept")
        self.progress = replace(self.progress, encoded=self.progress.encoded + number)


class _Counting:
    """An encoder that tells how many pictures it has encoded."""

    def __init__(self, encoder: Encoder, count: Callable[[int], None]) -> None:
        self._encoder = encoder
        self._count = count

    @property
    def embed_dim(self) -> int:
        return self._encoder.embed_dim

    def stream_images(self, sources: Sequence[Path | bytes]) -> Iterator[EncodedPictures]:
        for batch in self._encoder.stream_images(sources):
            yield batch
            self._count(len(batch.positions))


class _Pause:
    """Keeps the worker of a gallery from running requests; they wait meanwhile."""

    def __init__(self, collection: Collection) -> None:
        self._worker = collection.worker
        self._ended = threading.Event()
        self._begun = threading.Event()

    def begin(self) -> None:
        """Wait until the request that runs is finished; later ones wait for :meth:`end`."""
        if not self._begun.is_set():

            def hold() -> None:
                self._begun.set()
                self._ended.wait()

            for _ in range(_ATTEMPTS):
                try:
                    self._worker.call(hold)
                except ServiceError:  # the queue is full
                    if self._ended.wait(0.05):
                        return
                else:
                    self._begun.wait()
                    return
            raise GalleryError("the service is too busy to switch; reload again later")

    def end(self) -> None:
        """Run requests again."""
        self._ended.set()
