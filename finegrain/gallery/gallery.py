"""A durable, searchable collection of pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from finegrain.errors import FilterError, GalleryError, did_you_mean
from finegrain.gallery.backend import Memory, Search
from finegrain.gallery.changes import move, notes_on_kinds, update
from finegrain.gallery.duplicates import Inserted, OnDuplicate, checked_choice
from finegrain.gallery.entries import (
    checked_biases,
    checked_entries,
    checked_ids,
    checked_k,
    checked_offset,
    checked_queries,
)
from finegrain.gallery.exchange import load
from finegrain.gallery.filters.advice import filter_notes
from finegrain.gallery.filters.conditions import column_kinds
from finegrain.gallery.filters.syntax import joined, parse
from finegrain.gallery.grouping import Thinning
from finegrain.gallery.places import location_exists, open_store
from finegrain.gallery.row import Entry, Place, Row, meets
from finegrain.gallery.scoring import ScoredSearch, Scoring, without_biases
from finegrain.gallery.several_vectors import SeveralVectors
from finegrain.gallery.upkeep import GalleryUpkeep
from finegrain.index.approximate import Tuned
from finegrain.index.backend import SearchBackend
from finegrain.index.exact import Hit, Ids, Vectors
from finegrain.records import Pid, Scalar

_CHUNK_PATHS = 1024

BiasOf = Callable[[Vectors], Vectors | None]
"""Computes the biases ``[N]`` of pictures from their vectors ``[N, D]``; None for no biases."""


class Gallery(GalleryUpkeep):
    """Vectors of pictures with their paths and metadata, in durable files.

    The effect of :meth:`add` and :meth:`delete` survives a crash once the call has returned.
    Search is exact unless ``index`` names an approximate index. The first search reads one-byte
    codes of the vectors into memory, and each search reads the vectors of its candidates from the
    file, or from memory with ``memory="vectors"``. Later searches read only changes, including
    those of other processes. Any number of threads may share a gallery and search at once.

    The vectors are in a second file next to the first, with ``.vectors`` after its name. Copy and
    move both together.

    One process writes at a time; other writers wait up to 30 seconds. Any number of processes
    may read. The gallery opens read-only if the file or its folder is not writable. Pictures
    added with ``expire_after`` leave all results as soon as they expire. :meth:`expire`, opening
    the gallery, and occasionally a search remove them from the file.

    A gallery may also be on a Milvus cluster, for many processes and machines. Methods and
    results are the same; :class:`~finegrain.gallery.milvus.MilvusStore` states the differences.

    Args:
        path: Path of the file, which is created if it does not exist. Or the address of a
            gallery on Milvus, as text: ``http://host:port/name`` for a server, or
            ``milvus:people.db`` for a file of milvus-lite.
        fingerprint: Identity of the plan that makes the vectors. A new gallery stores it. An
            existing gallery opens only with the fingerprint that it stores, or with None.
        dim: Width of the vectors; required for a new gallery.
        create: If False, a missing gallery is an error instead of being created.
        index: Kind of index, for a gallery in a file: an approximate one for many millions of
            pictures, or :class:`~finegrain.index.gpu.index.Gpu`. None searches exactly in memory.
        memory: What the exact search of a file keeps in memory: ``"codes"`` takes one byte per
            number, and ``"vectors"`` five. The results are the same. With the vectors in memory,
            filters that match few pictures and searches for hundreds of hits are faster.
        vectors_per_row: Most vectors of a picture: those of the frames of a track, or of the two
            embeddings of a model. A picture has the highest score of its vectors, and counts once.
            None opens a gallery with its own number; a new one has 1.

    Raises:
        GalleryError: The file is missing, damaged, of another application or format, or
            holds vectors of another plan or width; or the server cannot be reached.
        MissingExtraError: The address is on Milvus, and its client is not installed.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> gallery = Gallery(f"{folder.name}/crops.gallery", dim=2)
        >>> gallery.add([[1, 0], [0, 1]], ["a.jpg", "b.jpg"], cameras=["gate-1", "gate-3"])
        [1, 2]
        >>> gallery.search([[0.6, 0.8]], k=1)
        [[Hit(id=2, score=0.800000011920929)]]
        >>> gallery.search([[0.6, 0.8]], k=1, where="camera = 'gate-1'")
        [[Hit(id=1, score=0.6000000238418579)]]
        >>> gallery.close()
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        create: bool = True,
        index: SearchBackend | None = None,
        memory: Memory = "codes",
        vectors_per_row: int | None = None,
    ) -> None:
        self._store = open_store(
            path,
            fingerprint=fingerprint,
            dim=dim,
            create=create,
            index=index,
            memory=memory,
            vectors_per_row=vectors_per_row,
        )
        self._bias_of: BiasOf | None = None

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a path or address exists; nothing is created.

        Raises:
            GalleryError: The server cannot be reached.
        """
        return location_exists(path)

    @property
    def path(self) -> Path | str:
        """Path of the file, or the address on Milvus without its login."""
        return self._store.path

    @property
    def fingerprint(self) -> str | None:
        return self._store.fingerprint

    @property
    def dim(self) -> int:
        return self._store.dim // self._store.vectors_per_row

    @property
    def vectors_per_row(self) -> int:
        """Most vectors of a picture."""
        return self._store.vectors_per_row

    @property
    def _several(self) -> SeveralVectors:
        return SeveralVectors(self.vectors_per_row, self.dim)  # a reindexing changes the width

    def fill_biases(self, bias_of: BiasOf | None) -> None:
        """Give each picture that is added from now on the bias that its vector implies.

        Args:
            bias_of: Computes the biases ``[N]`` of vectors ``[N, D]``, or returns None to leave
                them out. None gives pictures no bias.
        """
        self._bias_of = bias_of

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
        biases: npt.ArrayLike | None = None,
        on_duplicate: OnDuplicate = "add",
    ) -> list[int]:
        """Add pictures, all of them or none.

        Args:
            vectors: L2-normalised vectors, ``[N, D]``. With ``vectors_per_row``, up to so many
                for each picture, as ``[N, K, D]`` or as ``N`` arrays ``[n, D]``.
            images: Path of each picture, or None for a picture without a file; ``N`` values, as
                in all columns below. In each column, None means that the value is unknown.
            pids: Keys of the persons or products: integers or texts, stored unchanged. The
                number 10 and the text "10" are the same key.
            cameras: Names of the cameras.
            times: When the pictures were taken: datetimes or text of ISO 8601, in UTC unless
                they state an offset; stored to the millisecond.
            tracks: Names of the tracks that the pictures belong to. Trackers number their
                tracks per camera, so include the camera, as in ``gate-3/17``.
            metadata: Further columns of each picture, for filters and display.
            thumbnails: JPEG files, for pictures without a file of their own.
            expire_after: How long to keep the pictures, in seconds or as timedelta, counted from
                the time they were taken, or from now if that is unknown. None keeps them.
            biases: A number for each picture that is added to its inner product, see
                :meth:`set_bias`; by default that of :meth:`fill_biases`, or zero.
            on_duplicate: What to do with a path that is in the gallery already: ``add`` another
                picture of it (such as a second crop of one frame); ``skip`` it; ``replace`` all
                its pictures, under a new id; or raise an ``error``.

        Returns:
            The new ids, in the order of ``vectors``; a skipped picture keeps its old id.

        Raises:
            GalleryError: Vectors or columns are invalid, the file cannot be written, or a
                path is a duplicate; nothing was written.
        """
        checked_choice(on_duplicate)
        checked = self._several.checked(vectors)
        if biases is None and self._bias_of is not None:
            biases = self._bias_of(checked)
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
            biases=biases,
        )
        return self._store.insert(checked, entries, on_duplicate)

    def add_entries(
        self, vectors: npt.ArrayLike, entries: Sequence[Entry], *, known: Set[int] = frozenset()
    ) -> Inserted:
        """Add pictures whose columns are already validated, except those that others have added.

        A picture is skipped if another process has added its path with the same pid.

        Args:
            vectors: L2-normalised vectors, ``[N, D]``.
            entries: Columns of the ``N`` pictures.
            known: Ids that the caller has added, or found when it decided to add these pictures.
        """
        checked = self._several.checked(vectors)
        entries = self._with_biases(checked, entries)
        return self._store.insert_unless_overtaken(checked, entries, known)

    def load(self, source: str | Path) -> list[int]:
        """Add all pictures of an :meth:`export` or of clip-retrieval's output, all or none.

        Returns:
            Their new ids.

        Raises:
            GalleryError: There is no export, it is damaged, or its vectors are of another plan
                or width; nothing was written.
            MissingExtraError: The export is Parquet and pyarrow is not installed.
        """
        return load(self._store, Path(source), self._with_biases)

    def _with_biases(self, vectors: Vectors, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Entries with the biases of :meth:`fill_biases`, if it was called."""
        biases = None if self._bias_of is None else self._bias_of(vectors)
        if biases is None:
            return entries
        return [replace(e, bias=bias) for e, bias in zip(entries, biases.tolist(), strict=True)]

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        biased: bool = True,
    ) -> list[list[Hit]]:
        """The ``k`` best pictures for each query, by inner product plus bias.

        Args:
            vectors: L2-normalised queries, ``[Q, D]``.
            k: Number of hits per query; fewer if the gallery or the filter has fewer pictures.
            where: Search only pictures that match a filter such as ``"camera = 'gate-3'"``; see
                :mod:`finegrain.gallery.filters.conditions` for the syntax. The columns of a
                filter are kept in memory. The fewer pictures match, the faster the search.
            group_by: Column such as ``"pid"`` or ``"track"``. Only the best picture of each
                value is returned; a picture without a value is a group of its own. The result
                is as exact as the search: it goes deeper until it has ``k`` groups or has seen
                all pictures.
            distinct: Leave out a picture whose cosine with a better hit is above this value, to
                remove near-duplicate frames; 0.98 is a good start.
            offset: Number of best hits to skip, for the next page of results.
            biased: Whether to add the biases of pictures.

        Returns:
            Hits of each query, best first; equal scores are ordered by ascending id.

        Raises:
            QueryError: ``k`` is not a positive integer, ``offset`` is negative, the queries are
                invalid, or no picture has the column ``group_by``.
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        queries = checked_queries(vectors, self.dim)
        depth = checked_k(k) + checked_offset(offset)
        thinning = self._thinning(group_by, distinct)
        search = self._searching(where, biased=biased)
        hits = search(queries, depth) if thinning is None else thinning(search, queries, depth)
        return [row[offset:] for row in hits]

    def search_caption(
        self,
        ids: npt.NDArray[np.int32],
        eot: npt.NDArray[np.int32],
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
    ) -> list[Hit] | None:
        """Embed a caption and search for it in one launch, if the index can; see :meth:`search`.

        Args:
            ids: Token ids of the caption, int32 ``[1, L]``.
            eot: Position of the end-of-text token, int32 ``[1]``.
            k, where, group_by, distinct: As in :meth:`search`.

        Returns:
            The hits; None if the index cannot embed captions, or the gallery is empty.
        """
        depth = checked_k(k)
        thinning = self._thinning(group_by, distinct)
        if self.vectors_per_row > 1:
            return None
        embedded = self._store.searching_caption(ids, eot, where)
        if embedded is None:
            return None
        vector, search = embedded
        hits = search(vector, depth) if thinning is None else thinning(search, vector, depth)
        return hits[0]

    def search_by(
        self,
        scoring: Scoring,
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        without: Collection[int] = (),
        biased: bool = True,
    ) -> list[Hit]:
        """The ``k`` best pictures by a score that an inner product bounds.

        The result is as exact as that of :meth:`search`: it equals scoring every picture.

        Args:
            scoring: The score.
            k, where, group_by, distinct, offset: As in :meth:`search`.
            without: Ids of pictures to leave out.
            biased: Whether to add the biases of pictures.

        Returns:
            Hits, best first; equal scores are ordered by ascending id.
        """
        self._require_one_vector("search_by")
        vector = checked_queries(scoring.vector[None], self.dim)
        depth = checked_k(k) + checked_offset(offset)
        thinning = self._thinning(group_by, distinct)
        nearest = self._searching(where, biased=biased)
        search = ScoredSearch(self._store, nearest, scoring, without, biased=biased)
        hits = search(vector, depth) if thinning is None else thinning(search, vector, depth)
        return hits[0][offset:]

    def _searching(self, where: str | None, *, biased: bool) -> Search:
        search = self._store.searching(where)
        return search if biased else without_biases(search)

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; ids that are not stored, or no longer, are left out.

        With ``vectors_per_row``, they are ``[K, D]``; the first is repeated for missing ones.
        """
        stored = self._store.vectors(checked_ids(ids))
        return {id_: self._several.restored(vectors) for id_, vectors in stored.items()}

    def added_after(self, last_id: int) -> Iterator[tuple[Ids, Vectors]]:
        """Ids above ``last_id`` with their vectors, ``[N]`` and ``[N, D]``, ascending, in chunks.

        Ids only grow, so the pictures that are added later have ids above those of now.
        """
        yield from self._store.vectors_after(last_id)

    def _thinning(self, group_by: str | None, distinct: float | None) -> Thinning | None:
        if group_by is None and distinct is None:
            return None
        if distinct is not None:
            self._require_one_vector("distinct=")
        return Thinning(self._store, group_by=group_by, distinct=distinct)

    def rows(self, ids: Iterable[int], where: str | None = None) -> list[Row]:
        """Rows in the order of the ids; ids that are not stored, or no longer, are left out.

        Args:
            ids: Ids, as of the hits of a search.
            where: Leave out rows that do not match this filter. The columns of a hit may have
                changed since a search with the filter.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        ordered = checked_ids(ids)
        condition = None if where is None else parse(where, self._store.columns())
        rows = self._store.rows(ordered)
        if condition is not None:
            rows = {id_: row for id_, row in rows.items() if meets(row, condition)}
        return [rows[id_] for id_ in ordered if id_ in rows]

    def ids_where(self, where: str) -> list[int]:
        """Ids of the pictures that match a filter, ascending.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return list(self._store.ids_where(where).tolist())

    def damaged(self) -> frozenset[int]:
        """Ids of the pictures whose damage was detected since the gallery was opened.

        They are left out of all answers. :meth:`check` examines the whole file. A picture that was
        deleted or indexed again, in any process, is not among them any more.
        """
        return self._store.damaged_now()

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG thumbnails by id; pictures that were added without one are left out."""
        return self._store.thumbnails(checked_ids(ids))

    def thumbnail(self, id_: int) -> bytes | None:
        """JPEG thumbnail of a picture, or None if it was added without one."""
        return self._store.thumbnails(checked_ids([id_])).get(id_)

    def images(self) -> set[str]:
        """Paths of all pictures that have one."""
        return self._store.images()

    def known(self, images: Iterable[str]) -> set[str]:
        """The paths that have pictures in the gallery. It is not read as a whole."""
        return {image for image in self._store.known(images) if image is not None}

    def columns(self) -> dict[str, str]:
        """Kind of each column that a filter may use, such as ``"text"``, by name.

        A column that has held values of several kinds states all: ``"number or text"``.
        """
        return column_kinds(self._store.columns())

    def values(self, column: str, limit: int) -> list[Scalar]:
        """Up to ``limit`` distinct values of a column, in no particular order.

        Raises:
            FilterError: There is no such column.
        """
        if column not in self.columns():
            raise FilterError(
                f"no picture has a column {column!r}.{did_you_mean(column, self.columns())}"
            )
        return list(self._store.values(column, limit))

    def update(
        self,
        pictures: str | Iterable[int],
        columns: Mapping[str, Scalar],
        *,
        where: str | None = None,
    ) -> int:
        """Set columns of pictures without encoding them again.

        Args:
            pictures: Ids, or a filter such as ``"camera = 'gate-3'"``.
            columns: New values by name; other columns stay. None removes a value. ``pid``,
                ``camera``, ``time`` and ``track`` are built-in columns; others are metadata.
            where: Change only pictures that also match this filter. In a file, it is checked in
                the transaction that changes a picture.

        Returns:
            Number of pictures changed.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: A value is of the wrong type or of a kind that its column never held, or
                a column cannot be set.
        """
        if isinstance(pictures, str):
            where = pictures if where is None else joined([pictures, where])
            return update(self._store, self._store.ids_where(where), columns, where)
        return update(self._store, checked_ids(pictures), columns, where)

    def notes_on_kinds(self, entries: Iterable[Entry]) -> list[str]:
        """Notes on columns that hold values of one kind, where entries have values of another."""
        return notes_on_kinds(self._store.columns(), entries)

    def set_bias(self, ids: Iterable[int], values: npt.ArrayLike) -> int:
        """Set the numbers that are added to the inner products of pictures.

        Every search adds them, and stays exact. Hub correction lowers pictures that are near many
        queries in this way. A picture has the bias zero until it is given another one. Processes
        that have the gallery open follow the change. Encoding the pictures with another plan
        (:meth:`reindex`) removes all biases. An approximate index takes its candidates without
        regard to biases.

        Args:
            ids: Ids of pictures; those that are not stored are ignored.
            values: A number for each of them, or one for all; stored as float32.

        Returns:
            Number of pictures whose bias was set.

        Raises:
            GalleryError: The numbers are not finite or not one for each id, the file cannot be
                written, or the gallery is on Milvus.
        """
        chosen = checked_ids(ids)
        return self._store.set_biases(chosen, checked_biases(values, len(chosen)))

    def biases(self, ids: Iterable[int]) -> dict[int, float]:
        """Biases by id; pictures that were never given one are left out."""
        return self._store.biases(checked_ids(ids))

    def move(self, old: str | Path, new: str | Path) -> int:
        """Record that a folder or file of pictures has moved; nothing is encoded again.

        Returns:
            Number of pictures that moved with it.

        Raises:
            GalleryError: No picture is under the old path, or no file is at any of the new paths.
        """
        return move(self._store, Path(old), Path(new))

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the columns of stored rows by those of these rows, which are validated."""
        if rows:
            self._store.rewrite(rows)

    def places(self) -> Iterable[Place]:
        """Path, source, size and digest of each picture that has a path, by ascending id."""
        return self._store.places()

    def rows_of(self, images: Iterable[str]) -> Iterator[tuple[str, list[Row], set[int]]]:
        """The rows of the pictures of each path, and the ids of those that must be encoded again.

        A picture must be encoded again if its vector or thumbnail is damaged. Those with damaged
        columns are left out.
        """
        paths = list(images)
        for start in range(0, len(paths), _CHUNK_PATHS):
            chunk = paths[start : start + _CHUNK_PATHS]
            known = self._store.known(chunk, with_damaged=True)
            rows = self._store.rows(id_ for ids in known.values() for id_ in ids)
            damaged = self._store.damaged_among(rows)
            for path in chunk:
                own = [rows[id_] for id_ in known.get(path, ()) if id_ in rows]
                yield path, own, damaged.intersection(row.id for row in own)

    def notes_on(self, where: str) -> list[str]:
        """Notes on a filter that matches few pictures: columns and texts that no picture has.

        For example, the note on ``baseColour = 'black'`` suggests the value ``'Black'``.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return filter_notes(self._store, where)

    def tune(self, vectors: npt.ArrayLike, *, k: int = 10, min_recall: float = 0.99) -> Tuned:
        """Measure the recall of an approximate index, and set its effort accordingly.

        Args:
            vectors: Representative queries, ``[Q, D]``: embeddings of texts if users search by
                text.
            k: Number of hits over which recall is measured.
            min_recall: Required mean share of the exact hits.

        Raises:
            GalleryError: The gallery searches exactly.
            QueryError: The queries, ``k`` or ``min_recall`` are invalid.
        """
        queries = self._several.expanded(checked_queries(vectors, self.dim))
        return self._store.tune(queries, checked_k(k), min_recall)

    def delete(self, ids: Iterable[int], *, where: str | None = None) -> int:
        """Delete pictures and erase their bytes from the file and from the files next to it.

        The cost grows with the pictures deleted and not with the size of the gallery. Searches
        continue meanwhile. If another process still reads an older snapshot, a
        :class:`GalleryWarning` is issued, and the bytes are erased once it has finished.

        Args:
            ids: Ids of the pictures.
            where: Delete only pictures that also match this filter. In a file, it is checked in
                the transaction that deletes them.

        Returns:
            Number of pictures deleted.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        condition = None if where is None else parse(where, self._store.columns())
        return self._store.delete(checked_ids(ids), condition)

    def delete_where(self, where: str) -> int:
        """Delete the pictures that match a filter; see :meth:`delete`.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return self._store.delete_where(where)

    def close(self) -> None:
        """Close the gallery; afterwards only ``repr`` works."""
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
