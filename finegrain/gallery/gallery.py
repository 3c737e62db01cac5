"""A durable, searchable collection of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.entries import (
    Entry,
    OnDuplicate,
    checked_choice,
    checked_entries,
    checked_k,
    checked_offset,
    checked_queries,
    checked_vectors,
)
from finegrain.gallery.exchange import export, load
from finegrain.gallery.gallery_rows import GalleryRows
from finegrain.gallery.grouping import Thinning
from finegrain.gallery.places import open_store, there_is
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.gallery.sqlite.upkeep import Upkeep
from finegrain.index.approximate import Approximate, Tuned
from finegrain.index.exact import Hit
from finegrain.records import Pid, Scalar


class Gallery(GalleryRows, Upkeep):
    """Vectors of pictures with their paths and metadata, in one file that loses nothing.

    What :meth:`add` or :meth:`delete` has returned survives a crash. Search is exact unless an
    approximate index is asked for; the vectors are read into memory at the first search and
    follow the file from then on, also when another process writes to it. A gallery may be shared
    by threads: one at a time follows the file, and any number search at once.

    One process writes at a time and others wait for it, up to half a minute; any number may
    read. A file that cannot be written, or whose folder cannot, opens for reading. Pictures
    added with ``expire_after`` are in no answer once their time is over, and are removed from
    the file by :meth:`expire`, by opening it, and now and then by searches.

    A gallery may also be on a Milvus cluster, for many processes and machines, with the same
    methods and the same answers. What differs there is said in
    :class:`~finegrain.gallery.milvus.MilvusStore`.

        >>> gallery = Gallery("crops.gallery", dim=512)                      # doctest: +SKIP
        >>> gallery.search(queries, k=10, where="camera = 'gate-3'")         # doctest: +SKIP
        >>> Gallery("http://milvus:19530/people", dim=512)                   # doctest: +SKIP

    Args:
        path: The file; it is created when there is none. Or text with the address of one on
            Milvus: ``http://host:port/name`` of a server, ``milvus:people.db`` in a file of
            milvus-lite.
        fingerprint: Identity of the plan that makes the vectors. It is kept in a new
            gallery, and an existing one opens only with the fingerprint it was made with, or
            without stating any.
        dim: Width of the vectors; needed for a new gallery.
        create: False refuses to create a gallery.
        index: An approximate index for a file with many millions of pictures; None searches
            exactly.

    Raises:
        GalleryError: The file is missing, damaged, of another application or format, or
            holds the vectors of another plan or width. Or the server cannot be reached.
        MissingExtraError: The address is of Milvus, and its client is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        create: bool = True,
        index: Approximate | None = None,
    ) -> None:
        self._store = open_store(path, fingerprint=fingerprint, dim=dim, create=create, index=index)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is something at a path or address, without making it.

        Raises:
            GalleryError: The server cannot be reached.
        """
        return there_is(path)

    @property
    def path(self) -> Path | str:
        """Path of the file, or the address on Milvus without its login."""
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
        pids: Sequence[Pid | None] | None = None,
        cameras: Sequence[str | None] | None = None,
        times: Sequence[datetime | str | None] | None = None,
        tracks: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Scalar]] | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
        expire_after: timedelta | float | None = None,
        on_duplicate: OnDuplicate = "add",
    ) -> list[int]:
        """Add pictures, all of them or none.

        Args:
            vectors: L2-normalised, ``[N, D]``.
            images: Paths, or None where a picture has no file; ``N`` of them, as of all below.
            pids: Keys of the persons or products, where known: numbers or texts, which are kept
                as they are. The number 10 and the text "10" are one key.
            cameras: Names of the cameras, where known.
            times: When the pictures were taken, where known: datetimes or text of ISO 8601,
                in UTC unless they state an offset; kept to the millisecond.
            tracks: Names of the tracks that they are part of, where known. Number a tracker's
                per camera, as in ``gate-3/17``: its own numbers begin anew at every camera.
            metadata: Further columns of each picture, for filters and display.
            thumbnails: JPEG files of the pictures that have no file of their own.
            expire_after: How long to keep them, in seconds or as timedelta, from when they
                were taken where that is known and else from now. None keeps them.
            on_duplicate: What to do with a path that is there already: ``add`` another picture
                of it, as of several crops of one frame; ``skip`` it; ``replace`` all pictures
                of it, under a new id; or raise an ``error``.

        Returns:
            The new ids, in the order given; for a picture that was skipped, the one it had.

        Raises:
            GalleryError: Vectors or columns do not fit, the file cannot be written, or a
                path is a duplicate; nothing was written.
        """
        checked_choice(on_duplicate)
        checked = checked_vectors(vectors, self.dim)
        entries = checked_entries(
            len(checked),
            images=images,
            pids=pids,
            cameras=cameras,
            times=times,
            tracks=tracks,
            metadata=metadata,
            thumbnails=thumbnails,
            expire_after=expire_after,
        )
        return self._store.insert(checked, entries, on_duplicate)

    def last_id(self) -> int:
        """The highest id that was given so far."""
        return self._store.last_id()

    def add_entries(
        self,
        vectors: npt.ArrayLike,
        entries: Sequence[Entry],
        *,
        since: int | None = None,
        own: Set[int] = frozenset(),
    ) -> list[int]:
        """Add pictures whose columns were checked already; see :meth:`add`.

        A path that another process has added after the id ``since`` is passed over; ``own`` are
        the ids that the caller has added since.
        """
        checked = checked_vectors(vectors, self.dim)
        if since is None:
            return self._store.insert(checked, entries)
        return self._store.insert_unless_overtaken(checked, entries, since, own)

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> list[list[Hit]]:
        """The ``k`` best pictures for each query, by inner product.

        Args:
            vectors: L2-normalised queries, ``[Q, D]``.
            k: How many for each; fewer come back when the gallery or the filter has fewer.
            where: Look only at pictures that match, as in ``"camera = 'gate-3'"``; the
                language is described in :mod:`finegrain.gallery.filters`. The fewer match,
                the faster the search.
            group_by: A column, such as ``"pid"`` or ``"track"``: of each of its values only
                the best picture; a picture without a value counts for itself. As exact as the
                search itself: it looks deeper until there are ``k`` groups, or no more pictures.
            distinct: Leave out a picture whose cosine with a better one in the answer is above
                this, as of neighbouring frames; 0.98 is a good start.
            offset: How many of the best to leave out, as for the next page of an answer.

        Returns:
            For each query its hits, best first; equal scores by ascending id.

        Raises:
            QueryError: ``k`` is no positive whole number, ``offset`` is negative, the queries do
                not fit, or no picture has the column to group by.
            FilterError: The filter does not parse or does not fit its columns.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        queries = checked_queries(vectors, self.dim)
        depth = checked_k(k) + checked_offset(offset)
        thinning = Thinning(self._store, group_by=group_by, distinct=distinct)
        answers = thinning.search(self._store.searching(where), queries, depth)
        return [hits[offset:] for hits in answers]

    def tune(self, vectors: npt.ArrayLike, *, k: int = 10, min_recall: float = 0.99) -> Tuned:
        """Measure an approximate index on real queries, and set its effort by that.

        Args:
            vectors: Queries as users ask them, so of texts where users write texts, ``[Q, D]``.
            k: How many hits of each count.
            min_recall: Mean share of the exact answers that is to be found.

        Raises:
            GalleryError: The gallery searches exactly.
            QueryError: Queries, ``k`` or ``min_recall`` do not fit.
        """
        return self._store.tune(checked_queries(vectors, self.dim), checked_k(k), min_recall)

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool = False,
        progress: bool = True,
    ) -> Reindexed:
        """Encode all pictures again, with another plan.

        Each batch is durable when it is done: after an interruption the same call goes on
        where it stopped. Until all are done every search is answered from the old vectors;
        then the file switches at once, and galleries that other processes hold open ask to be
        opened again. The pictures are read from their paths, or from their thumbnails.

        Args:
            encoder: Of the new plan.
            fingerprint: Identity of the new plan.
            drop_unreadable: Delete pictures that cannot be read any more. By default the
                gallery stays with its old vectors when there are any.
            progress: Show a bar with rate and time left.

        Raises:
            GalleryError: The file cannot be written, or a reindexing with a third plan began.
        """
        return self._store.reindex(
            encoder, fingerprint, drop_unreadable=drop_unreadable, progress=progress
        )

    def export(self, target: str | Path) -> int:
        """Write all pictures to files that other tools read; returns how many.

        Args:
            target: A new path. With the ending ``.parquet`` one Parquet file, else a folder of
                NumPy arrays and JSON lines in the layout of clip-retrieval; see
                :mod:`finegrain.gallery.exchange`.

        Raises:
            GalleryError: There is something at the path already, or it cannot be written.
            MissingExtraError: Parquet is asked for and pyarrow is not installed.
        """
        return export(self._store, Path(target))

    def load(self, source: str | Path) -> list[int]:
        """Add all pictures of an :meth:`export`, or of clip-retrieval's output, or none.

        Returns:
            Their new ids.

        Raises:
            GalleryError: There is no export, it is damaged, or its vectors are of another plan
                or width; nothing was written.
            MissingExtraError: It is Parquet and pyarrow is not installed.
        """
        return load(self._store, Path(source))

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
