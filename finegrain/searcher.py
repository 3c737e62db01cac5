"""Search: a plan, a gallery, and three lines of code."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, PlanError, QueryError
from finegrain.explanation import Explanation, explain
from finegrain.gallery import Gallery, GroupBy, Hit, Reindexed, Row
from finegrain.gallery.pictures import SUFFIXES
from finegrain.intake import Added, Metadata, columns_of, take_in
from finegrain.matches import Match, Matches
from finegrain.plan import Plan
from finegrain.preprocess import ImageSource
from finegrain.records import Sample
from finegrain.reranker import Prepared, Reranker, match_head
from finegrain.runtime.base import RuntimeName

__all__ = ["SUFFIXES", "Added", "Searcher"]

DEFAULT_K = 10
RERANK_K = 64
MAX_QUERY_CHARACTERS = 2_000


class Searcher:
    """Searches a gallery of pictures by text or by picture.

    Example:
        >>> import finegrain
        >>> searcher = finegrain.Searcher("model.plan")                  # doctest: +SKIP
        >>> searcher.add("crops/", metadata={"camera": "gate-3"})        # doctest: +SKIP
        >>> searcher.query("woman in red coat", k=5)                     # doctest: +SKIP

    Args:
        plan: Path of a ``model.plan``.
        gallery: Path of the gallery, or an open one. By default ``model.gallery`` beside the
            plan, which the first :meth:`add` creates.
        runtime: What runs the towers.
        threads: Of the towers on a CPU; by default one a physical core.
        rerank: ``"match"`` puts the first pictures of a text query in the order of the plan's
            match head, which reads the words beside each picture. Queries by picture have no
            words and stay as they are.
        rerank_k: How many of the first are looked at, at most; see :mod:`finegrain.rerank`.

    Raises:
        PlanError: The plan cannot be read or run, or has no match head to re-rank with.
        MissingExtraError: The runtime is not installed.
        GalleryError: The gallery is damaged or holds vectors of another plan.
    """

    def __init__(
        self,
        plan: str | Path,
        *,
        gallery: str | Path | Gallery | None = None,
        runtime: RuntimeName = "onnxruntime",
        threads: int | None = None,
        rerank: Literal["match"] | None = None,
        rerank_k: int = RERANK_K,
    ) -> None:
        opened = Plan(plan)
        self.manifest = opened.manifest
        self._rerank_k = None if rerank is None else _checked_rerank(rerank, rerank_k)
        if rerank is not None:
            match_head(self.manifest)
        self._reranker: Reranker | None = None
        self._encoder = Encoder.from_plan(opened, runtime=runtime, threads=threads)
        self._gallery: Gallery | None = None
        if isinstance(gallery, Gallery):
            self._path = gallery.path
            self._gallery = gallery
            self._refuse_foreign_vectors(gallery)
        else:
            self._path = _gallery_path(opened.path, gallery)
            if self._path.exists():
                self._gallery = self._open()

    def _open(self) -> Gallery:
        return Gallery(
            self._path, fingerprint=self.manifest.fingerprint, dim=self.manifest.embed_dim
        )

    def _refuse_foreign_vectors(self, gallery: Gallery) -> None:
        if gallery.fingerprint != self.manifest.fingerprint:
            raise GalleryError(
                f"{gallery.path} holds vectors of plan {str(gallery.fingerprint)[:12]}, and this "
                f"is plan {self.manifest.fingerprint[:12]}; vectors of two plans do not compare. "
                "Encode its pictures again: finegrain index PLAN PICTURES --reindex"
            )

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: Nothing was added yet.
        """
        if self._gallery is None:
            raise GalleryError(
                f"there is no gallery at {self._path} yet. Add pictures with Searcher.add(folder) "
                "or: finegrain index PLAN FOLDER"
            )
        return self._gallery

    def add(
        self,
        pictures: ImageSource | Iterable[ImageSource],
        metadata: Metadata | Sequence[Metadata] | None = None,
        *,
        expire_after: timedelta | float | None = None,
        replace: bool = False,
        progress: bool = True,
    ) -> Added:
        """Encode pictures and keep them in the gallery.

        Each batch is durable when it is done: after an interruption, adding the same folder
        again goes on where it stopped, since files already there are passed over. A picture
        that cannot be read is named in the result and stops nothing.

        Args:
            pictures: A folder (searched through), a file, an array, a Pillow image, or
                several of the latter three. Of pictures without a file a thumbnail is kept.
            metadata: Columns for all pictures, or one mapping for each. ``camera``, ``pid``,
                ``time`` (ISO 8601) and ``track`` are the gallery's own columns.
            expire_after: Remove the pictures so long after they were taken (``time``) where
                that is known, and else after now; in seconds or as timedelta.
            replace: Encode files that are there already again, with the metadata given.
            progress: Show a bar with rate and time left.

        Raises:
            ImageError: There is no such file or folder, or no picture in it.
            GalleryError: Metadata does not fit.
        """
        if self._gallery is None:
            self._gallery = self._open()
        return take_in(
            self._encoder,
            self._gallery,
            pictures,
            metadata,
            expire_after=expire_after,
            replace=replace,
            progress=progress,
        )

    def add_samples(
        self,
        samples: Sequence[Sample],
        metadata: Metadata | None = None,
        *,
        expire_after: timedelta | float | None = None,
        progress: bool = True,
    ) -> Added:
        """Add the pictures of a dataset or catalogue with their pid, camera and columns.

        Args:
            samples: Their first caption becomes the column ``caption``.
            metadata: Further columns for all of them.
            expire_after: As in :meth:`add`.
            progress: Show a bar with rate and time left.
        """
        return self.add(
            [sample.image for sample in samples],
            [columns_of(sample, metadata or {}) for sample in samples],
            expire_after=expire_after,
            progress=progress,
        )

    def query(
        self,
        query: str | ImageSource,
        k: int | None = None,
        *,
        where: str | None = None,
        group_by: GroupBy | None = None,
        distinct: float | None = None,
    ) -> Matches:
        """Find the pictures that fit a text, or look like a picture.

        Args:
            query: A text. A path to a picture must be a :class:`~pathlib.Path`; arrays, bytes
                and Pillow images are pictures too.
            k: How many; by default ten, or all of a smaller gallery.
            where: Look only at pictures whose columns match, such as
                ``"camera = 'gate-3' and time >= '2026-05-01T08:00'"``.
            group_by: ``"pid"`` or ``"track"``: of each only the best picture.
            distinct: Leave out pictures whose cosine with a better match is above this, as
                of neighbouring frames; 0.98 is a good start.

        Returns:
            Matches, best first; fewer than ``k`` where the filter or the grouping leaves fewer.

        Raises:
            QueryError: The text is empty, too long, or not text; or ``k`` or the grouping does
                not fit.
            ImageError: The query picture cannot be read.
            FilterError: The filter does not parse, or names no column.
            GalleryError: The gallery is empty.
        """
        vector = self._vector(query)
        gallery = self.gallery
        size = len(gallery)
        if size == 0:
            raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
        if k is not None and type(k) is int and k > size:
            raise QueryError(
                f"k is {k}, and the gallery holds {size} pictures; ask for at most those"
            )
        depth = min(DEFAULT_K, size) if k is None else k
        reranker = self._second_stage() if isinstance(query, str) else None
        looked_at = depth if reranker is None else min(max(depth, reranker.k), size)
        hits = gallery.search(vector, looked_at, where, group_by=group_by, distinct=distinct)[0]
        found: list[tuple[Hit, float | None]] = [(hit, None) for hit in hits]
        if reranker is not None and isinstance(query, str):
            found = reranker.order(query, hits, depth)[:depth]
        shown = query if isinstance(query, str) else "<picture>"
        return Matches(shown, list(self._matches(found, self._explainer(query))))

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
        with Gallery(_gallery_path(opened.path, gallery), create=False) as filled:
            return filled.reindex(
                Encoder.from_plan(opened, threads=threads),
                opened.manifest.fingerprint,
                drop_unreadable=drop_unreadable,
                progress=progress,
            )

    def close(self) -> None:
        self._encoder.runtime.close()
        if self._reranker is not None:
            self._reranker.close()
        if self._gallery is not None:
            self._gallery.close()

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
        size = len(self._gallery) if self._gallery is not None else 0
        return f"Searcher({self.manifest.method}, {size} pictures in {str(self._path)!r})"

    def _vector(self, query: str | ImageSource) -> np.ndarray[Any, np.dtype[np.float32]]:
        if isinstance(query, str):
            return self._encoder.encode_texts([_checked_text(query)])
        if not isinstance(query, Path | bytes | np.ndarray | Image.Image):
            raise QueryError(
                f"expected a text or a picture to search for, got {type(query).__name__}"
            )
        return self._encoder.encode_images([query])

    def _second_stage(self) -> Reranker | None:
        if self._rerank_k is not None and self._reranker is None:
            self._reranker = Reranker(self._encoder, self.manifest, self.gallery, k=self._rerank_k)
        return self._reranker

    def _explainer(self, query: str | ImageSource) -> Callable[[Match], Explanation] | None:
        if not isinstance(query, str):
            return None
        return lambda match: explain(self._encoder, query, match.open())

    def _matches(
        self,
        found: Sequence[tuple[Hit, float | None]],
        explainer: Callable[[Match], Explanation] | None,
    ) -> Iterator[Match]:
        rows = {row.id: row for row in self.gallery.rows([hit.id for hit, _ in found])}
        there = ((hit, match) for hit, match in found if hit.id in rows)
        for rank, (hit, match) in enumerate(there, start=1):
            row = rows[hit.id]
            yield Match(
                rank=rank,
                score=hit.score,
                match=match,
                explainer=explainer,
                id=hit.id,
                image=row.image,
                pid=row.pid,
                camera=row.camera,
                metadata=_shown(row),
                thumbnail=self.gallery.thumbnail(hit.id) if row.image is None else None,
            )


def _gallery_path(plan: Path, gallery: str | Path | None) -> Path:
    return Path(gallery) if gallery is not None else plan.with_suffix(".gallery")


def _checked_rerank(rerank: str, k: int) -> int:
    if rerank != "match":
        raise QueryError(f"expected rerank='match' or None, got {rerank!r}")
    if type(k) is not int or k < 1:
        raise QueryError(f"expected rerank_k as a whole number of 1 or more, got {k!r}")
    return k


def _shown(row: Row) -> Metadata:
    """The columns that a match has no field for."""
    own = (("time", row.time), ("track", row.track))
    return {name: value for name, value in own if value is not None} | dict(row.metadata)


def _checked_text(query: str) -> str:
    if not query.strip():
        raise QueryError("the query is empty; say what to look for, as in 'woman in red coat'")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}; "
            "a caption of a sentence or two searches best"
        )
    control = [c for c in query if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"]
    if control:
        raise QueryError(f"the query holds the control character {control[0]!r}; remove it")
    return query
