"""Storage of a gallery on Milvus: rows, vectors and search."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from functools import partial
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from finegrain import times
from finegrain.errors import FilterError, GalleryError
from finegrain.gallery.backend import Search
from finegrain.gallery.clock import warn_of_doubt
from finegrain.gallery.duplicates import Inserted, OnDuplicate, duplicates, insert_except, overtaken
from finegrain.gallery.filters.conditions import (
    And,
    Column,
    Condition,
    IsNull,
    Like,
    Membership,
    Or,
    Value,
    evaluate,
    kind_of,
)
from finegrain.gallery.filters.milvus import quoted, stored_text, to_milvus
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.milvus.address import Consistency, MilvusAddress
from finegrain.gallery.milvus.batches import Batches
from finegrain.gallery.milvus.clock import look
from finegrain.gallery.milvus.connection import MAX_ROWS, PAGE_ROWS, Connection, Document
from finegrain.gallery.milvus.documents import (
    NO_BIASES,
    ROW_FIELDS,
    THUMBNAIL_FIELDS,
    documents,
    rewritten,
    row_of,
    size_of,
    thumbnail_of,
)
from finegrain.gallery.milvus.identifiers import IdSource
from finegrain.gallery.milvus.layout import (
    Expected,
    Layout,
    Seen,
    note_kinds,
    open_collection,
    seen_kinds,
)
from finegrain.gallery.milvus.reindex import reindex
from finegrain.gallery.milvus.search import MilvusSearch, vector_pages
from finegrain.gallery.picture_files import discard_unpacked
from finegrain.gallery.row import Entry, Place, Row, meets, value_of
from finegrain.gallery.several_vectors import SeveralVectors
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.index.approximate import Tuned
from finegrain.index.exact import Hit, Ids, Vectors
from finegrain.records import Scalar

_MESSAGE_BYTES = 16 * 2**20  # a server accepts at most 64 MiB
_IMAGES_AT_ONCE = 256  # paths may be long, and one expression holds all of them
_PICTURES = "id > 0"
_INT64_END = 2**63


class MilvusStore:
    """Storage of a gallery in a Milvus collection. Every method may be called from any thread.

    A change is in the server's log once the method returns. Later reads by any process see it,
    unless the address sets a weaker consistency. Searches, counts and lists of ids with strong
    consistency see an ``insert`` completely or not at all
    (:mod:`~finegrain.gallery.milvus.batches`). What a crash leaves of one is in none of them, and
    is removed when the gallery is opened an hour later. A collection of an earlier version does
    neither. A ``rewrite``, a deletion and ``set_biases`` write up to 4096 rows at once, and
    more in several steps: readers may see some of them, and a crash may leave the others as they
    were. A condition is evaluated before, so rows that others change meanwhile are changed as well.
    Two processes that ``index`` the same picture at the same time add it once. With
    ``on_duplicate``, both may add it.

    Deleted rows are hidden at once. Their bytes leave the disk after the server has compacted the
    segments (which is requested) and collected its garbage (at a time the server chooses).
    A file of milvus-lite survives a crash of the process, but may not survive a power failure.
    """

    def __init__(
        self,
        address: MilvusAddress,
        *,
        fingerprint: str | None,
        dim: int | None,
        create: bool,
        vectors_per_row: int | None = None,
    ) -> None:
        if not create and not address.may_be_there():
            raise GalleryError(f"There is no gallery at {address.shown}. Check the address.")
        self.path = address.shown
        self._name = address.name
        self._consistency = address.consistency
        self._connection = Connection(address)
        try:
            self._collection, self._layout = open_collection(
                self._connection,
                address.name,
                address.shown,
                expected=Expected(fingerprint, dim, vectors_per_row),
                create=create,
            )
        except BaseException:
            self._connection.close()
            raise
        self._batches = (
            Batches(self._connection, self._collection, self._layout.width)
            if self._layout.has_biases
            else None  # an earlier version would take its notes for others
        )
        if self._batches is not None:
            self._batches.remove_abandoned()
        self._ids = IdSource()
        self._seen: set[Seen] = set()

    @staticmethod
    def exists(address: MilvusAddress) -> bool:
        """Whether a gallery exists at an address."""
        return address.may_be_there() and Connection.finds(address)

    def close(self) -> None:
        self._connection.close()

    @property
    def fingerprint(self) -> str | None:
        return self._layout.fingerprint

    @property
    def dim(self) -> int:
        return self._layout.dim

    @property
    def vectors_per_row(self) -> int:
        return self._layout.vectors_per_row

    def searching(self, where: str | None) -> Search:
        condition = _alive() if where is None else self._matching(where)

        def searched(queries: Vectors, k: int, hidden: str = "") -> list[list[Hit]]:
            return MilvusSearch(
                self._connection,
                self._collection,
                f"{condition} and {hidden}" if hidden else condition,
                dim=self.dim,
                consistency=self._consistency,
                has_biases=self._layout.has_biases,
            )(queries, k)

        def search(queries: Vectors, k: int) -> list[list[Hit]]:
            if self._batches is None:
                return searched(queries, k)
            return self._batches.search(lambda hidden: searched(queries, k, hidden))

        if (count := self.vectors_per_row) == 1:
            return search
        return SeveralVectors(count, self.dim // count).searching(search)

    def searching_caption(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], where: str | None
    ) -> tuple[Vectors, Search] | None:
        return None  # a server embeds no captions

    def tune(self, queries: Vectors, k: int, min_recall: float) -> Tuned:
        raise GalleryError(f"{self.path} searches exactly, so there is no effort to tune.")

    def count(self) -> int:
        def counted(hidden: str) -> int:
            condition = f"{_alive()} and {hidden}" if hidden else _alive()
            return self._connection.count(self._collection, condition, self._consistency)

        return counted("") if self._batches is None else self._batches.consistent(counted)

    def ids(self) -> Ids:
        return self._complete_ids(_alive())

    def ids_where(self, expression: str) -> Ids:
        return self._complete_ids(self._matching(expression))

    def _complete_ids(self, condition: str) -> Ids:
        """Ids of the matching rows, without those of additions in progress."""

        def read(hidden: str) -> Ids:
            return self._ids_of(f"{condition} and {hidden}" if hidden else condition)

        return read("") if self._batches is None else self._batches.consistent(read)

    def columns(self) -> dict[str, set[str]]:
        self._seen |= seen_kinds(self._connection, self._collection)
        columns: dict[str, set[str]] = {}
        for name, kind in sorted(self._seen):
            columns.setdefault(name, set()).update({kind} - {"null"})
        return columns

    def images(self) -> set[str]:
        pages = self._pages(f'{_alive()} and image != ""', ["image"])
        return {document["image"][1:] for page in pages for document in page}

    def damaged_now(self) -> frozenset[int]:
        return frozenset()  # the server checks its own files

    def damaged_among(self, ids: Iterable[int]) -> set[int]:
        return set()

    def known(
        self, images: Iterable[str], *, with_damaged: bool = False
    ) -> dict[str | None, list[int]]:
        paths = list(images)
        known: dict[str | None, list[int]] = {}
        for start in range(0, len(paths), _IMAGES_AT_ONCE):
            chunk = paths[start : start + _IMAGES_AT_ONCE]
            literals = ", ".join(quoted(stored_text(image)) for image in chunk)
            for page in self._pages(f"{_alive()} and image in [{literals}]", ["image"]):
                for document in page:
                    known.setdefault(document["image"][1:], []).append(document["id"])
        return known

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        return {row.id: row for row in map(row_of, self._among(ids, ROW_FIELDS, self._consistency))}

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        rows = map(row_of, self._among_recent(ids, ROW_FIELDS))
        values = {row.id: value_of(row, column) for row in rows}
        return {id_: value for id_, value in values.items() if value is not None}

    def values(self, column: str, limit: int) -> list[Value]:
        has_value = to_milvus(IsNull(Column(column, 0), negated=True))
        distinct: dict[tuple[bool, Scalar], Value] = {}
        for page in self._pages(f"{_alive()} and ({has_value})", ROW_FIELDS):
            for row in map(row_of, page):
                value = value_of(row, column)
                if value is not None and len(distinct) < limit:
                    distinct[isinstance(value, bool), value] = value
            if len(distinct) == limit:
                break
        return list(distinct.values())

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        hits = self._among(ids, THUMBNAIL_FIELDS, self._consistency)
        jpegs = ((document["id"], thumbnail_of(document)) for document in hits)
        return {id_: jpeg for id_, jpeg in jpegs if jpeg is not None}

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        hits = self._among_recent(ids, ["vector"])
        return {
            document["id"]: np.array(document["vector"][: self.dim], np.float32)
            for document in hits
        }

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        for ids, vectors in vector_pages(
            self._connection, self._collection, _alive(), PAGE_ROWS, after=last_id
        ):
            yield ids, np.ascontiguousarray(vectors[:, : self.dim])

    def places(self) -> Iterator[Place]:
        for page in self._pages(f'{_alive()} and image != ""', ROW_FIELDS):
            for row in map(row_of, page):
                size, digest = (row.stamp.size, row.stamp.digest) if row.stamp else (None, None)
                yield Place(row.id, row.image or "", row.source, size, digest)

    def has_numbered_pids(self) -> bool:
        return False  # a collection does not record which version wrote a row

    def rewrite(self, rows: Sequence[Row]) -> None:
        self._note(rows)
        new = {row.id: row for row in rows}
        fields = [*ROW_FIELDS, *THUMBNAIL_FIELDS, "vector"]
        stored = list(self._among(new, fields))
        for start in range(0, len(stored), _IMAGES_AT_ONCE):
            chunk = stored[start : start + _IMAGES_AT_ONCE]
            self._connection.write(
                self._collection, [rewritten(old, new[old["id"]]) for old in chunk]
            )
        self._connection.settle(self._collection)

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        rows = duplicates(self, entries, on_duplicate)
        ids = insert_except(rows.kept, vectors, entries, self._insert)
        if rows.replaced:
            self.delete(rows.replaced)
        return ids

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], known: Set[int]
    ) -> Inserted:
        """Write rows, except pictures that another process has added.

        A server does not order the writes of two processes, so both may write the same picture.
        Each process therefore looks again after it has written. The picture with the lowest id
        stays; a process that sees another one removes it.
        """
        theirs = overtaken(self, entries, known)
        ids = insert_except(theirs, vectors, entries, self._insert)
        twins = overtaken(self, entries, known | {*ids})
        to_remove = []
        for row, twin in twins.items():
            to_remove.append(max(twin, ids[row]))
            if twin < ids[row]:
                ids[row] = theirs[row] = twin
        self._remove(to_remove)
        return Inserted(ids, len(theirs))

    def _insert(self, vectors: Vectors, entries: Sequence[Entry]) -> list[int]:
        return self.insert_all([(vectors, entries)])

    def set_biases(self, ids: Sequence[int], values: Vectors) -> int:
        if not self._layout.has_biases:
            raise GalleryError(NO_BIASES)
        new = dict(zip(ids, values.tolist(), strict=True))
        stored = list(self._among(new, [*ROW_FIELDS, *THUMBNAIL_FIELDS, "vector"]))
        changed = [
            {**old, "vector": np.array([*old["vector"][: self.dim], new[old["id"]]], np.float32)}
            for old in stored
        ]
        for message in _messages(changed):
            self._connection.write(self._collection, message)
        self._connection.settle(self._collection)
        return len(changed)

    def biases(self, ids: Iterable[int]) -> dict[int, float]:
        if not self._layout.has_biases:
            return {}
        ends = ((d["id"], d["vector"][self.dim]) for d in self._among(ids, ["vector"]))
        return {id_: float(bias) for id_, bias in ends if bias}

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        new_ids: list[int] = []
        messages = self._messages_of(batches, new_ids)
        try:
            first = list(islice(messages, 2))
            if len(first) < 2 or self._batches is None:
                self._write(chain(first, messages))
            else:
                undo = partial(self._connection.remove, self._collection, new_ids)
                with self._batches.writing(undo) as announce:
                    self._write(chain(first, messages), announce)
        except BaseException:
            self._connection.remove(self._collection, new_ids)
            raise
        if new_ids:
            self._connection.settle(self._collection)
        return new_ids

    def _messages_of(
        self, batches: Iterable[tuple[Vectors, Sequence[Entry]]], new_ids: list[int]
    ) -> Iterator[list[Document]]:
        """Documents of all batches in messages; their ids are appended to ``new_ids``."""
        for vectors, entries in batches:
            ids = self._ids.take(len(entries))
            now = times.utc_text(times.now())
            has_biases = self._layout.has_biases
            written = documents(ids, vectors, entries, now, has_biases=has_biases)
            self._note(entries)
            new_ids += ids
            yield from _messages(written)

    def _write(
        self,
        messages: Iterable[list[Document]],
        announce: Callable[[list[int]], None] = lambda ids: None,
    ) -> None:
        for message in messages:
            announce([document["id"] for document in message])
            self._connection.write(self._collection, message)

    def change(
        self, ids: Sequence[int], condition: Condition | None, changed: Callable[[Row], Row]
    ) -> int:
        rows = self.rows(ids).values()
        matching = [row for row in rows if condition is None or meets(row, condition)]
        self.rewrite([changed(row) for row in matching])
        return len(matching)

    def delete_where(self, expression: str) -> int:
        return self._remove(self.ids_where(expression).tolist())

    def delete(self, ids: Iterable[int], condition: Condition | None = None) -> int:
        if condition is not None:
            ids = [id_ for id_, row in self.rows(ids).items() if meets(row, condition)]
        return self._remove([document["id"] for document in self._among(ids, [])])

    def expire(self, *, trust_clock: bool = False) -> int:
        until, doubted = look(
            self._connection, self._collection, self._layout.width, trust=trust_clock
        )
        count = self._remove(self._ids_of(_expired(until)).tolist()) if until else 0
        if doubted is not None:
            warn_of_doubt(self.path, doubted, stacklevel=3)
        return count

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool,
        progress: bool,
    ) -> Reindexed:
        layout = Layout(fingerprint, encoder.embed_dim)
        if layout[:2] == (self.fingerprint, self.dim):
            return Reindexed(num_encoded=0, problems=[], switched=True)
        collection, done = reindex(
            self._connection,
            self._name,
            self._collection,
            layout,
            encoder,
            alive=_alive,
            drop_unreadable=drop_unreadable,
            progress=progress,
        )
        if done.switched:
            self._collection = collection
            self._layout = layout
            self._batches = Batches(self._connection, collection, layout.width)
        return done

    def _matching(self, expression: str) -> str:
        """Condition for the present rows that match a filter."""
        # Kinds are never removed, so a filter that is valid for those seen so far needs no query.
        columns = {name: {kind} for name, kind in self._seen if kind != "null"}
        try:
            condition = parse(expression, columns)
        except FilterError:
            condition = parse(expression, self.columns())
        return f"{_alive()} and ({to_milvus(self._without_like(condition))})"

    def _without_like(self, condition: Condition) -> Condition:
        """The same condition, with each ``like`` replaced by a list of the matching ids."""
        match condition:
            case And(terms):
                return And(tuple(map(self._without_like, terms)))
            case Or(terms):
                return Or(tuple(map(self._without_like, terms)))
            case Like(column):
                rows = (row_of(d) for page in self._pages(_alive(), ROW_FIELDS) for d in page)
                ids = tuple(
                    row.id
                    for row in rows
                    if evaluate(condition, {column.name: value_of(row, column.name)})
                )
                place = Column("id", column.position)
                return Membership(place, ids or (0,), negated=False)  # no picture has id 0
        return condition

    def _ids_of(self, condition: str) -> Ids:
        pages = self._pages(condition, [], rows=MAX_ROWS)
        return np.fromiter((d["id"] for page in pages for d in page), np.int64)

    def _pages(
        self, condition: str, fields: Sequence[str], rows: int = PAGE_ROWS
    ) -> Iterator[list[Document]]:
        return self._connection.pages(self._collection, condition, fields, after=0, rows=rows)

    def _among(
        self, ids: Iterable[int], fields: Sequence[str], consistency: Consistency = "Strong"
    ) -> Iterator[Document]:
        return self._connection.among(
            self._collection, _possible(ids), _alive(), fields, consistency=consistency
        )

    def _among_recent(self, ids: Iterable[int], fields: Sequence[str]) -> list[Document]:
        """Like ``_among``, but fast for rows that a search has just returned.

        Only rows that a weak read does not find are read with strong consistency.
        """
        valid_ids = _possible(ids)
        hits = list(
            self._connection.among(
                self._collection, valid_ids, _PICTURES, fields, consistency="Bounded"
            )
        )
        lacking = set(valid_ids) - {document["id"] for document in hits}
        return [*hits, *self._among(lacking, fields)]

    def _note(self, entries: Sequence[Entry]) -> None:
        """Store kinds of values that filters do not know yet."""
        kinds = {
            (name, "null" if value is None else kind_of(value))
            for entry in entries
            for name, value in entry.metadata.items()
        }
        note_kinds(self._connection, self._collection, self._layout.width, kinds - self._seen)
        self._seen |= kinds

    def _remove(self, ids: Sequence[int]) -> int:
        if ids:
            documents = self._connection.among(self._collection, ids, _PICTURES, ["image"])
            leaving = {document["image"][1:]: document["id"] for document in documents}
            discard_unpacked(leaving, lambda path: self._is_used(path, {*ids}))
            self._connection.remove(self._collection, ids)
            self._connection.compact(self._collection)
        return len(ids)

    def _is_used(self, path: str, without: Set[int]) -> bool:
        """Whether a picture has a path, or is a part of that picture, apart from some ids."""
        own, part = quoted(stored_text(path)), (f"{path}#", f"{path}$")
        low, high = (quoted(stored_text(end)) for end in part)
        condition = f"{_PICTURES} and (image == {own} or (image >= {low} and image < {high}))"
        return bool({*self._ids_of(condition).tolist()} - without)


def _now() -> str:
    return quoted(stored_text(times.utc_text(times.now())))


def _alive() -> str:
    return f'{_PICTURES} and (expires_at == "" or expires_at > {_now()})'


def _expired(until: str) -> str:
    moment = quoted(stored_text(until))
    return f'{_PICTURES} and expires_at != "" and expires_at <= {moment}'


def _possible(ids: Iterable[int]) -> list[int]:
    return sorted({id_ for id_ in ids if 0 < id_ < _INT64_END})


def _messages(written: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in batches of a size that a server accepts."""
    message: list[Document] = []
    size = 0
    for document in written:
        if message and (size + size_of(document) > _MESSAGE_BYTES or len(message) == PAGE_ROWS):
            yield message
            message, size = [], 0
        message.append(document)
        size += size_of(document)
    if message:
        yield message
