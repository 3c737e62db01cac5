"""Search: a plan, a gallery, and three lines of code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

from finegrain.encoder import Encoder
from finegrain.errors import PlanError
from finegrain.gallery import Gallery, Reindexed
from finegrain.gallery.pictures import SUFFIXES
from finegrain.plan import Plan
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem, Sample
from finegrain.rerank import RerankBy
from finegrain.runtime.base import RuntimeChoice
from finegrain.search.answers import Query, Request, answer
from finegrain.search.ingest import Added, Manner, Metadata, columns_of, take_in
from finegrain.search.matches import Matches
from finegrain.search.reranker import Prepared, Reranker, checked_depth, match_head
from finegrain.search.retriever import FirstStage, VectorPlace, gallery_path
from finegrain.search.video import Boxes, take_in_video

__all__ = ["SUFFIXES", "Added", "Searcher"]

RERANK_K = 64


class Searcher:
    """Searches a gallery of pictures by text or by picture.

    Example:
        >>> import finegrain
        >>> searcher = finegrain.Searcher("model.plan")                  # doctest: +SKIP
        >>> searcher.add("crops/", metadata={"camera": "gate-3"})        # doctest: +SKIP
        >>> searcher.query("woman in red coat", k=5)                     # doctest: +SKIP

    Args:
        plan: Path of a ``model.plan``.
        gallery: Path or address of the gallery, or an open one. By default ``model.gallery``
            beside the plan, which the first :meth:`add` creates.
        runtime: What runs the towers, or the address of a Triton server that does.
        threads: Of the towers on a CPU; by default one a physical core.
        trust_engines: Load engines of TensorRT that came inside the plan. They are programs: do
            this only for a plan of your own, or of somebody whose programs you would run.
        vectors: ``"gpu"`` also keeps the vectors on an NVIDIA GPU and answers from there, hit for
            hit as the gallery's own index, which ``"memory"`` takes. With ``runtime="tensorrt"``
            and a plan with ``search.onnx`` a text query is then one launch. Otherwise it needs
            FAISS for GPUs or PyTorch. The gallery is given by its path.
        rerank: ``"match"`` puts the first pictures of a text query in the order of the plan's
            match head, which reads the words beside each picture. Queries by picture have no
            words and stay as they are.
        rerank_k: How many of the first are looked at, at most; see :mod:`finegrain.rerank`.
        rerank_by: ``"both"`` orders them by cosine and match together, and ``"match"`` by the match
            head alone, as RaSa's paper reports; every one of them is then looked at.

    Raises:
        PlanError: The plan cannot be read or run, or has no match head to re-rank with; or
            there is no GPU.
        MissingExtraError: The runtime, or what searches on a GPU, is not installed.
        GalleryError: The gallery is damaged or holds vectors of another plan; or it is not in a
            file, or open already, and ``vectors="gpu"``.
    """

    def __init__(
        self,
        plan: str | Path,
        *,
        gallery: str | Path | Gallery | None = None,
        runtime: RuntimeChoice = "onnxruntime",
        threads: int | None = None,
        trust_engines: bool = False,
        vectors: VectorPlace = "memory",
        rerank: Literal["match"] | None = None,
        rerank_k: int = RERANK_K,
        rerank_by: RerankBy = "both",
    ) -> None:
        opened = Plan(plan)
        self.manifest = opened.manifest
        self._rerank_k = checked_depth(rerank, rerank_k, rerank_by)
        self._rerank_by = rerank_by
        if rerank is not None:
            match_head(self.manifest)
        self._reranker: Reranker | None = None
        self._stage = FirstStage(
            opened,
            gallery,
            vectors=vectors,
            runtime=runtime,
            threads=threads,
            trust_engines=trust_engines,
        )
        self._encoder = self._stage.encoder

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: Nothing was added yet.
        """
        return self._stage.gallery

    def add(
        self,
        pictures: ImageSource | Crop | Iterable[ImageSource | Crop],
        metadata: Metadata | Sequence[Metadata] | None = None,
        *,
        expire_after: timedelta | float | None = None,
        replace: bool = False,
        sync: bool = False,
        source: str | Path | None = None,
        dry_run: bool = False,
        progress: bool = True,
    ) -> Added:
        """Encode pictures and keep them in the gallery.

        Each batch is durable when it is done: after an interruption, adding the same folder
        again goes on where it stopped, since files already there are passed over. A picture
        that cannot be read is named in the result and stops nothing.

        Args:
            pictures: A folder (searched through), a file, a :class:`~finegrain.preprocess.Crop`
                of one, an array, a Pillow image, or several of the latter four. Of pictures
                without a file a thumbnail is kept.
            metadata: Columns for all pictures, or one mapping for each. ``camera``, ``pid``,
                ``time`` (ISO 8601) and ``track`` are the gallery's own columns.
            expire_after: Remove the pictures so long after they were taken (``time``) where
                that is known, and else after now; in seconds or as timedelta.
            replace: Bring what is there already up to date: pictures whose files have changed
                are encoded again, and columns that are given are set, without encoding. Without
                it they are passed over, and counted where they differ.
            sync: As ``replace``; also remove what the source no longer gives, and find files
                that have moved by their content.
            source: What gives the pictures, which ``sync`` then keeps to: a folder by default,
                or any name.
            dry_run: Only say what would be done.
            progress: Show a bar with rate and time left.

        Raises:
            ImageError: There is no such file or folder, or no picture in it.
            GalleryError: Metadata does not fit, or ``sync`` has no source.
        """
        if source is None and isinstance(pictures, str | Path) and os.path.isdir(pictures):
            source = Path(pictures)
        manner = Manner.of(source, replace, sync, expire_after, dry_run, progress)
        return take_in(self._encoder, self._stage.made(), pictures, metadata, manner)

    def add_video(
        self,
        path: str | Path,
        *,
        every: float = 1.0,
        boxes: Boxes | None = None,
        camera: str | None = None,
        start: datetime | str | None = None,
        metadata: Metadata | None = None,
        expire_after: timedelta | float | None = None,
        progress: bool = True,
    ) -> Added:
        """Encode frames of a video file, or the people in them, and keep them in the gallery.

        Each is known by an address such as ``/films/gate-3.mp4#t=12.400&xywh=10,20,64,128``,
        which opens like the path of a picture as long as the video is there; a thumbnail is
        kept as well. After an interruption the same call goes on where it stopped.

        Args:
            path: Of the video.
            every: Seconds between frames.
            boxes: A detector, which is given each frame as upright RGB, uint8 ``[H, W, 3]``,
                and returns its boxes ``(x, y, width, height)`` or
                :class:`~finegrain.search.video.Box`; a frame with boxes in the gallery is not
                looked at again. Or boxes by seconds from the first frame, which then say
                what frames are taken. By default frames are kept whole.
            camera: Its name.
            start: When the first frame was taken, which gives each its ``time``; a datetime or
                ISO 8601, in UTC unless it states an offset.
            metadata: Further columns for all of them.
            expire_after: As in :meth:`add`.
            progress: Show a bar with rate and time left, in seconds of video.

        Raises:
            ImageError: It is no video that can be read, or ``every`` or a box is none.
            GalleryError: ``start`` or metadata do not fit.
            MissingExtraError: PyAV is not installed.
        """
        return take_in_video(
            self._encoder,
            self._stage.made(),
            path,
            step=every,
            boxes=boxes,
            camera=camera,
            start=start,
            metadata=metadata,
            expire_after=expire_after,
            progress=progress,
        )

    def load(self, source: str | Path) -> list[int]:
        """Add what :func:`finegrain.search.bulk.embed_dataset` or a gallery's export wrote.

        See :meth:`Gallery.load`.

        Returns:
            The new ids.

        Raises:
            GalleryError: It is damaged, or its vectors are of another plan.
        """
        return self._stage.made().load(source)

    def add_samples(
        self,
        samples: Sequence[Sample],
        metadata: Metadata | None = None,
        *,
        expire_after: timedelta | float | None = None,
        replace: bool = False,
        sync: bool = False,
        source: str | Path | None = None,
        problems: Sequence[Problem] = (),
        dry_run: bool = False,
        progress: bool = True,
    ) -> Added:
        """Add the pictures of a dataset or catalogue with their pid, camera and columns.

        Args:
            samples: Their first caption becomes the column ``caption``.
            metadata: Further columns for all of them.
            expire_after, replace, sync, dry_run: As in :meth:`add`.
            source: The table or folder that they are of.
            problems: What of it was left out. ``sync`` then removes only what is surely gone.
            progress: Show a bar with rate and time left.
        """
        manner = Manner.of(source, replace, sync, expire_after, dry_run, progress)
        return take_in(
            self._encoder,
            self._stage.made(),
            [sample.image for sample in samples],
            [columns_of(sample, metadata or {}) for sample in samples],
            manner,
            problems=problems,
        )

    @overload
    def query(
        self,
        query: Query,
        k: int | None = None,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> Matches: ...
    @overload
    def query(
        self,
        query: list[Query] | list[str] | tuple[Query, ...],
        k: int | None = None,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> list[Matches]: ...
    def query(
        self,
        query: Query | list[Query] | list[str] | tuple[Query, ...],
        k: int | None = None,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> Matches | list[Matches]:
        """Find the pictures that fit a text, or look like a picture.

        Args:
            query: A text. A path to a picture must be a :class:`~pathlib.Path`; arrays, bytes
                and Pillow images are pictures too. Or a list of several, which are searched
                together.
            k: How many; ten by default. A smaller gallery gives all it has.
            where: Look only at pictures whose columns match, such as
                ``"camera = 'gate-3' and time >= '2026-05-01T08:00'"``.
            group_by: A column such as ``"pid"`` or ``"track"``: of each of its values only the
                best picture.
            distinct: Leave out pictures whose cosine with a better match is above this, as
                of neighbouring frames; 0.98 is a good start.
            offset: How many of the best matches to leave out, as for a second page.

        Returns:
            Matches, best first; fewer than ``k`` where the filter or the grouping leaves fewer,
            with ``notes`` on words that were not read and on values that no picture has. Of
            several queries a list of these.

        Raises:
            QueryError: The text is empty, too long, or not text; ``k``, ``offset`` or
                ``distinct`` is out of range; or no picture has the column to group by.
            ImageError: The query picture cannot be read.
            FilterError: The filter does not parse, or names no column.
            GalleryError: The gallery is empty.
        """
        request = Request.checked(
            k, offset=offset, where=where, group_by=group_by, distinct=distinct
        )
        if not isinstance(query, list | tuple):
            return self._answer([query], request)[0]
        return self._answer(list(query), request)

    def _answer(self, queries: list[Query], request: Request) -> list[Matches]:
        reranker = self._second_stage() if any(isinstance(q, str) for q in queries) else None
        return answer(self._stage, reranker, queries, request)

    def prepare(self, *, progress: bool = True) -> Prepared:
        """Compute what re-ranking needs of every picture, once.

        Without it the first queries do so for the pictures that they come upon. Tokens are kept
        in ``<gallery>.tokens``, which may be deleted at any time.

        Raises:
            PlanError: The searcher was opened without ``rerank``.
        """
        reranker = self._second_stage()
        if reranker is None:
            raise PlanError("nothing to prepare: open the searcher with rerank='match'")
        return reranker.prepare(progress=progress)

    def expire(self) -> int:
        """Delete the pictures whose time is over (``expire_after``); returns how many."""
        return self.gallery.expire()

    @classmethod
    def reindex(
        cls,
        plan: str | Path,
        *,
        gallery: str | Path | None = None,
        drop_unreadable: bool = False,
        threads: int | None = None,
        progress: bool = True,
    ) -> Reindexed:
        """Encode the pictures of a gallery again, with another plan than it was filled with.

        See :meth:`Gallery.reindex`; afterwards the gallery opens with the new plan only.

        Args:
            plan: Path of the new ``model.plan``.
            gallery: By default ``model.gallery`` beside the plan.
            drop_unreadable: Delete pictures that cannot be read any more; else they stop it.
            threads: Threads of the towers; by default one a physical core.
            progress: Show a bar with rate and time left.

        Raises:
            GalleryError: There is no gallery, or it cannot be written.
        """
        opened = Plan(plan)
        with Gallery(gallery_path(opened.path, gallery), create=False) as filled:
            return filled.reindex(
                Encoder.from_plan(opened, threads=threads),
                opened.manifest.fingerprint,
                drop_unreadable=drop_unreadable,
                progress=progress,
            )

    def close(self) -> None:
        if self._reranker is not None:
            self._reranker.close()
        self._stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        size = len(self._stage.opened) if self._stage.opened is not None else 0
        return f"Searcher({self.manifest.method}, {size} pictures in {str(self._stage.path)!r})"

    def _second_stage(self) -> Reranker | None:
        if self._rerank_k is not None and self._reranker is None:
            self._reranker = Reranker(
                self._encoder, self.manifest, self.gallery, k=self._rerank_k, by=self._rerank_by
            )
        return self._reranker
