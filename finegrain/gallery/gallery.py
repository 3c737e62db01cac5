"""A durable, searchable collection of pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.entries import (
    checked_entries,
    checked_ids,
    checked_k,
    checked_queries,
    checked_vectors,
)
from finegrain.gallery.filters import BUILT_IN
from finegrain.gallery.index import Hit, VectorIndex
from finegrain.gallery.store import Row, Store
from finegrain.records import Scalar


class Gallery:
    """Vectors of pictures with their paths and metadata, in one file that loses nothing.

    What :meth:`add` or :meth:`delete` has returned survives a crash. Search is exact; the
    vectors are read into memory at the first search and follow the file from then on,
    also when another process writes to it. A gallery may be shared by threads: one at a time
    follows the file, and any number search at once.

        >>> gallery = Gallery("crops.gallery", dim=512)                      # doctest: +SKIP
        >>> gallery.search(queries, k=10, where="camera = 'gate-3'")         # doctest: +SKIP

    Args:
        path: The file; it is created when there is none.
        fingerprint: Identity of the plan that makes the vectors. It is kept in a new
            gallery, and an existing one opens only with the fingerprint it was made with, or
            without stating any.
        dim: Width of the vectors; needed for a new gallery.
        create: False refuses to create a file.

    Raises:
        GalleryError: The file is missing, damaged, of another application or format, or
            holds the vectors of another plan or width.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        create: bool = True,
    ) -> None:
        self._store = Store(Path(path), fingerprint=fingerprint, dim=dim, create=create)
        self._lock = threading.RLock()
        self._index = VectorIndex(self._store.dim)
        self._last_id = 0
        self._seen_version: int | None = None

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def fingerprint(self) -> str | None:
        return self._store.fingerprint

    @property
    def dim(self) -> int:
        return self._store.dim

    def add(
        self,
        vectors: npt.ArrayLike,
        images: Sequence[str | None],
        *,
        pids: Sequence[int | None] | None = None,
        cameras: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Scalar]] | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
    ) -> list[int]:
        """Add pictures, all of them or none.

        Args:
            vectors: L2-normalised, ``[N, D]``.
            images: Paths, or None where a picture has no file; ``N`` of them, as of all below.
            pids: Identities, where known.
            cameras: Names of the cameras, where known.
            metadata: Further columns of each picture, for filters and display.
            thumbnails: JPEG files of the pictures that have no file of their own.

        Returns:
            The new ids, in the order given.

        Raises:
            GalleryError: Vectors or columns do not fit; nothing was written.
        """
        checked = checked_vectors(vectors, self.dim)
        entries = checked_entries(
            len(checked),
            images=images,
            pids=pids,
            cameras=cameras,
            metadata=metadata,
            thumbnails=thumbnails,
        )
        return self._store.insert(checked, entries)

    def search(self, vectors: npt.ArrayLike, k: int, where: str | None = None) -> list[list[Hit]]:
        """The ``k`` best pictures for each query, by inner product.

        Args:
            vectors: L2-normalised queries, ``[Q, D]``.
            k: How many for each; fewer come back when the gallery or the filter has fewer.
            where: Look only at pictures that match, as in ``"camera = 'gate-3'"``; the
                language is described in :mod:`finegrain.gallery.filters`. The fewer match,
                the faster the search.

        Returns:
            For each query its hits, best first; equal scores by ascending id.

        Raises:
            QueryError: ``k`` is no positive whole number, or the queries do not fit.
            FilterError: The filter does not parse or does not fit its columns.
        """
        queries = checked_queries(vectors, self.dim)
        depth = checked_k(k)
        allowed = None if where is None else self._store.ids_where(where)
        with self._lock:
            self._follow_file()
        return self._index.search(queries, depth, allowed)

    def rows(self, ids: Iterable[int]) -> list[Row]:
        """Rows in the order of the ids; ids that are not (or no longer) there are left out."""
        wanted = checked_ids(ids)
        found = self._store.rows(wanted)
        return [found[id_] for id_ in wanted if id_ in found]

    def thumbnail(self, id_: int) -> bytes | None:
        """JPEG file of a picture that was added with one, else None."""
        return self._store.thumbnail(*checked_ids([id_]))

    def images(self) -> set[str]:
        """Paths of all pictures that have one."""
        return self._store.images()

    def columns(self) -> dict[str, str]:
        """Name and kind of each column a filter may use, such as ``"text"``.

        A column that has held several kinds states them all: ``"number or text"``.
        """
        seen = self._store.columns()
        kinds = {name: " or ".join(sorted(kinds)) or "null" for name, kinds in seen.items()}
        return {**BUILT_IN, **kinds}

    def delete(self, ids: Iterable[int]) -> int:
        """Delete pictures for good: their bytes are gone from the file.

        The file is rewritten for that, so delete many at once rather than one by one.

        Returns:
            How many of the ids were there.
        """
        return self._delete(checked_ids(ids))

    def delete_where(self, where: str) -> int:
        """Delete the pictures that match a filter; see :meth:`delete`.

        Raises:
            FilterError: The filter does not parse or does not fit its columns.
        """
        return self._delete(self._store.ids_where(where).tolist())

    def close(self) -> None:
        """Close the file; only ``repr`` works afterwards."""
        self._store.close()

    def __len__(self) -> int:
        return self._store.count()

    def __iter__(self) -> Iterator[int]:
        """Ids, ascending."""
        return iter(self._store.ids().tolist())

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, int) and bool(self._store.rows([id_]))

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
        try:
            size = f"{len(self)} pictures"
        except GalleryError:
            size = "closed"
        return f"Gallery({str(self.path)!r}, {size}, dim={self.dim})"

    def _delete(self, ids: list[int]) -> int:
        with self._lock:
            # The next search compares index and file, whatever became of this deletion.
            self._seen_version = None
            return self._store.delete(ids)

    def _follow_file(self) -> None:
        """Bring the index up to date with the file.

        Ids only grow and vectors never change, so news are the ids above the last one seen.
        Deletions need a comparison of all ids, made after one of ours and when the file says
        that another connection has written.
        """
        version = self._store.data_version()
        if version != self._seen_version:
            self._index.remove(np.setdiff1d(self._index.ids, self._store.ids()))
            self._seen_version = version
        for ids, vectors in self._store.vectors_after(self._last_id):
            self._index.add(ids, vectors)
            self._last_id = int(ids[-1])
