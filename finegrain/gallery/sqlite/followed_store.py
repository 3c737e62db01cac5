"""A gallery's file together with its index in memory, which follows the file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finegrain import times
from finegrain.errors import GalleryError
from finegrain.gallery.backend import Memory, Search
from finegrain.gallery.columns.followed import FollowedColumns
from finegrain.gallery.filters.conditions import column_kinds
from finegrain.gallery.several_vectors import SeveralVectors
from finegrain.gallery.sqlite.backup import tokens_of
from finegrain.gallery.sqlite.connections import patience
from finegrain.gallery.sqlite.files import codes_of
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed, reindex
from finegrain.gallery.sqlite.stats import GalleryStats, file_stats
from finegrain.gallery.sqlite.store import Store
from finegrain.gallery.sqlite.store_reader import Moment
from finegrain.gallery.sqlite.tokens import forget_tokens, keep_tokens
from finegrain.gallery.sqlite.vector_file import Checksums
from finegrain.index.approximate import ApproximateIndex, Tuned, tune
from finegrain.index.approximate.code_erasure import draft_of, forget_codes, keep_codes
from finegrain.index.backend import (
    BiasedIndex,
    CaptionIndex,
    MeasuredIndex,
    SearchBackend,
    SearchIndex,
)
from finegrain.index.block import StoredBlock
from finegrain.index.exact import Hit, Ids, VectorIndex, Vectors
from finegrain.runtime.forks import pause_at_fork

TIDY_SECONDS = 60.0
"""Seconds between attempts of searches to delete expired pictures from the file."""

NOTE_SECONDS = 3600.0
"""Seconds after which a search of a gallery that stays open notes the time."""

_PUBLISH_SECONDS = 2.0  # how long a search that writes codes waits for other writers
_EVER = ""  # before any time


class Follower:
    """Fills an index at the first search, and reads only changes afterwards.

    The exact index takes the codes of full blocks from the file, and reads the vectors of the last
    block. With ``memory="vectors"``, and for other indexes, all vectors are read. Ids only grow and
    the vectors of a plan never change, so new pictures are those above the last id seen. If the
    file counts more deletions than before, or a picture was found to be damaged, the ids of all
    deleted pictures are read. Expired pictures are found by their time. If the clock was set back,
    everything is read again.

    Args:
        store: The file.
        backend: Kind of index, or None for exact search in memory.
        memory: What an exact index keeps in memory.
    """

    def __init__(
        self, store: Store, backend: SearchBackend | None = None, memory: Memory = "codes"
    ) -> None:
        self._store = store
        self._backend = backend
        self._memory = memory
        self._lock = threading.RLock()
        self._untidy = False
        self._tidied = time.monotonic() - TIDY_SECONDS
        self._index = self._begin()
        pause_at_fork(self)

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()

    def close(self) -> None:
        self._index.close()

    def memory(self) -> dict[str, int]:
        """Bytes of the index in memory by part; empty if it is not filled, or does not tell."""
        index = self._index
        return index.memory() if len(index) and isinstance(index, MeasuredIndex) else {}

    @property
    def kind(self) -> str:
        """The kind of index, for people."""
        if self._backend is not None:
            return repr(self._backend)
        return f"exact, with {self._memory} in memory"

    def _begin(self) -> SearchIndex:
        """An empty index, for the plan that the file has now."""
        self._plan = (self._store.fingerprint, self._store.dim)
        self._seen_moment: Moment | None = None
        self._seen_losses: tuple[int, int] | None = None
        self._seen_time = _EVER
        self._num_adopted = 0
        self._bias_revision = 0
        self._identity: str | None = None
        if self._backend is None:
            count = self._store.vectors_per_row
            return VectorIndex(self._store.dim // count, vectors_per_row=count)
        return self._backend.over(self._store)

    def index(self) -> SearchIndex:
        """The index over the current content of the file. Any number of threads may search it.

        Raises:
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        with self._lock:
            now = times.utc_text(times.now())
            if self._plan != (self._store.fingerprint, self._store.dim) or now < self._seen_time:
                self._begin_again()
            with self._store.reading():  # one snapshot
                moment = self._store.moment()
                expired = self._store.ids_expired(self._seen_time, now)
            if moment != self._seen_moment:
                self._follow(now)
                self._seen_moment = moment
            self._drop_expired(expired, now)
            return self._index

    def _follow(self, now: str) -> None:
        """Read what has changed."""
        identity, num_blocks = self._store.blocks()
        if identity != self._identity:
            self._change_file()
            self._identity = identity
        self._drop_lost()
        self._follow_biases()
        self._adopt_blocks(num_blocks, now)
        # Query again for each chunk, since an approximate index may itself read further rows.
        while (chunk := self._new_rows()) is not None:
            self._index.add(*chunk)

    def _new_rows(self) -> tuple[Ids, Vectors] | None:
        """The next rows to add, whose biases the index knows already; None if there are none."""
        with self._store.reading():  # one snapshot
            self._follow_biases()
            return next(self._store.vectors_after(self._index.last_id), None)

    def _follow_biases(self) -> None:
        revision = self._store.bias_revision()
        if revision == self._bias_revision:
            return
        ids, values = self._store.biases_since(self._bias_revision)
        if isinstance(self._index, BiasedIndex):
            self._index.set_biases(ids, values)
        elif values.any():
            raise GalleryError(
                f"{self._store.path} has biases, which {self._backend!r:.80} does not add. Open it "
                "without index=, or set all biases to 0."
            )
        self._bias_revision = revision

    def _begin_again(self) -> None:
        self._index.close()
        self._index = self._begin()

    def _change_file(self) -> None:
        """Follow to a new file, which does not tell what was deleted before it was written."""
        if isinstance(self._index, VectorIndex):
            self._begin_again()
        elif isinstance(self._index, ApproximateIndex) and not len(self._index):
            self._index.open_kept()
        else:
            self._index.remove(np.setdiff1d(self._index.ids, self._store.ids()))

    def _drop_lost(self) -> None:
        losses = self._store.deletions(), len(self._store.damaged)
        if losses != self._seen_losses:
            if len(self._index):
                self._index.remove(self._store.lost_ids())
            self._seen_losses = losses

    def _adopt_blocks(self, num_blocks: int, now: str) -> None:
        """Have an exact index search full blocks of the file with the codes that it holds."""
        if not isinstance(self._index, VectorIndex):
            return
        if num_blocks > self._num_adopted:
            damaged = np.array(sorted(self._store.damaged), np.int64)
            hidden = np.concatenate([self._store.ids_expired(_EVER, now), damaged])

            def load(number: int) -> StoredBlock:
                block = self._store.block(number)
                block = block.only(~np.isin(block.ids, hidden))
                return block.in_memory() if self._memory == "vectors" else block

            self._index.adopt(range(self._num_adopted, num_blocks), load)
            self._num_adopted = num_blocks

    def _drop_expired(self, expired: Ids, now: str) -> None:
        self._seen_time = now
        if len(expired):
            self._index.remove(expired)
            self._untidy = True
        waited = time.monotonic() - self._tidied
        if waited >= (TIDY_SECONDS if self._untidy else NOTE_SECONDS):
            self._store.tidy_soon()
            self._untidy = False
            self._tidied = time.monotonic()


class FollowedStore(Store):
    """A :class:`Store` with an index in memory that follows the file.

    Tokens of a match head, and the codes of an approximate index, are in files next to it, and are
    deleted with their pictures.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None,
        dim: int | None,
        create: bool,
        index: SearchBackend | None,
        memory: Memory = "codes",
        vectors_per_row: int | None = None,
    ) -> None:
        self._tokens = tokens_of(path)
        self.codes_path = codes_of(path)
        super().__init__(
            path,
            fingerprint=fingerprint,
            dim=dim,
            create=create,
            vectors_per_row=vectors_per_row,
        )
        self._follower = Follower(self, index, memory)
        self._columns = FollowedColumns(self)

    def searching(self, where: str | None) -> Search:
        """Return a search over the present pictures that match a filter.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        allowed = None if where is None else self._columns.ids_where(where)
        index = self._follower.index()

        def search(queries: Vectors, depth: int) -> list[list[Hit]]:
            return index.search(queries, depth, allowed)

        if self.vectors_per_row == 1:
            return search
        several = SeveralVectors(self.vectors_per_row, self.dim // self.vectors_per_row)
        if isinstance(index, VectorIndex):
            return lambda queries, depth: search(several.scaled(queries), depth)
        return several.searching(search)

    def searching_caption(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], where: str | None
    ) -> tuple[Vectors, Search] | None:
        """Embed a caption, and return its embedding ``[1, D]`` and a search for it.

        Returns:
            None if the index cannot embed captions, or the gallery is empty.
        """
        allowed = None if where is None else self._columns.ids_where(where)
        index = self._follower.index()
        launched = index.launch(ids, eot) if isinstance(index, CaptionIndex) else None
        if launched is None:
            return None
        return launched.vector, lambda queries, depth: launched.search(queries, depth, allowed)

    def close(self) -> None:
        if hasattr(self, "_follower"):  # not after an error at opening
            self._follower.close()
        super().close()

    def tune(self, queries: Vectors, k: int, min_recall: float) -> Tuned:
        return tune(self._follower.index(), queries, k=k, min_recall=min_recall)

    def stats(self) -> GalleryStats:
        """Numbers about the files and the memory."""
        memory = self._follower.memory()
        if size := self._columns.num_bytes:
            memory["columns"] = size
        return GalleryStats(
            columns=column_kinds(self.columns()),
            index=self._follower.kind,
            memory=memory,
            **file_stats(self),
        )

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool,
        progress: bool,
        before_switch: Callable[[], None] = lambda: None,
    ) -> Reindexed:
        return reindex(
            self,
            encoder,
            fingerprint,
            drop_unreadable=drop_unreadable,
            progress=progress,
            before_switch=before_switch,
        )

    def _check_at_opening(self, *, lost_log: bool) -> None:
        super()._check_at_opening(lost_log=lost_log)
        if not self.read_only and not self.erased():  # the token file may hold deleted pictures too
            ids = self._ids_stored()
            keep_tokens(self._tokens, ids)
            self._forget_codes(lambda: keep_codes(self.codes_path, np.array(ids, np.int64)))

    def vector_checksums(self) -> tuple[Ids, Checksums]:
        """Ids of present pictures, ascending, and the CRC-32 of their vectors."""
        with self.reading() as run:
            ids, checksums = self._vectors.checksums(run)
            expired = self.ids_expired(_EVER, times.utc_text(times.now()))
        present = ~np.isin(ids, [*expired.tolist(), *self.damaged])
        return ids[present], checksums[present]

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Exclude deletions, and others that write codes, from the file of codes."""
        with (
            self._connections.lock,
            patience(self._connections.writer(), _PUBLISH_SECONDS),
            self.writing(),
        ):
            yield

    def _forget(self, ids: Sequence[int]) -> None:
        if ids:
            forget_tokens(self._tokens, ids)
            self._forget_codes(lambda: forget_codes(self.codes_path, np.sort(ids)))

    def _forget_plan(self) -> None:
        keep_tokens(self._tokens, [])
        self._forget_codes(lambda: keep_codes(self.codes_path, np.empty(0, np.int64)))

    def _forget_codes(self, forget: Callable[[], None]) -> None:
        """Overwrite codes, while nobody else writes them."""
        if self.codes_path.exists() or draft_of(self.codes_path).exists():
            with self.writing():
                forget()

    def _ids_stored(self) -> list[int]:
        with self.reading() as run:
            return [id_ for (id_,) in run("SELECT id FROM picture")]
