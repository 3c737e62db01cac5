"""The tables of a gallery's file: one SQLite database that loses no acknowledged write.

Vectors and thumbnails are in separate tables, so that a filter reads neither. Ids are never
reused, so that an index in memory finds new rows by "ids above the last one".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from itertools import chain

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.damage import StoredVector, decoded
from finegrain.gallery.entries import OnDuplicate, paths_once
from finegrain.gallery.filters.conditions import Value
from finegrain.gallery.filters.sql import to_sql
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.overtaken import Inserted, overtaken
from finegrain.gallery.row import Entry, Place, Row
from finegrain.gallery.sqlite.gallery_file import GalleryFile
from finegrain.gallery.sqlite.selection import (
    ALIVE,
    AMONG,
    EXPIRED,
    select_column,
    select_places,
    select_rows,
    select_thumbnails,
    select_values,
)
from finegrain.gallery.sqlite.statements import insert_rows, remove_rows, rewrite_rows
from finegrain.index.exact import Ids, Vectors
from finegrain.records import Scalar

_CHUNK_ROWS = 8192


class Store(GalleryFile):
    """The database behind a gallery. Every method may be called from any thread."""

    def count(self) -> int:
        # Every query counts, so this must not read every row. SQLite counts a table without a
        # condition by pages, and finds expired rows by an index.
        total = "SELECT count(*) FROM picture"
        with self.reading() as run:
            return int(run(f"SELECT ({total}) - ({total} WHERE {EXPIRED})").fetchone()[0])

    def ids(self) -> Ids:
        """All ids, ascending."""
        with self.reading() as run:
            return self._intact(run(f"SELECT id FROM picture WHERE {ALIVE} ORDER BY id"))

    def ids_where(self, expression: str) -> Ids:
        """Ids of the rows that match a filter, ascending."""
        with self.reading() as run:
            condition = to_sql(parse(expression, self.columns()))
            cursor = run(
                f"SELECT id FROM picture WHERE {ALIVE} AND {condition.text}", condition.parameters
            )
            return np.sort(self._intact(cursor))

    def ids_expired(self, since: str, until: str) -> Ids:
        """Ids of stored rows that expired after ``since`` and not after ``until``."""
        with self.reading() as run:
            return _ids(
                run(
                    "SELECT id FROM picture WHERE expires_at > ? AND expires_at <= ? ORDER BY id",
                    (since, until),
                )
            )

    def columns(self) -> dict[str, set[str]]:
        """Kinds of value that each metadata column has held."""
        columns: dict[str, set[str]] = {}
        with self.reading() as run:
            for name, kind in run("SELECT name, kind FROM seen ORDER BY name"):
                kinds = columns.setdefault(name, set())
                if kind != "null":
                    kinds.add(kind)
        return columns

    def images(self) -> set[str]:
        with self.reading() as run:
            cursor = run(f"SELECT image FROM picture WHERE image IS NOT NULL AND {ALIVE}")
            return {image for (image,) in cursor}

    def known(self, images: Iterable[str]) -> dict[str | None, list[int]]:
        known: dict[str | None, list[int]] = {}
        with self.reading() as run:
            for image in images:  # not as a JSON list: SQLite cuts a text at a null character there
                cursor = run(f"SELECT id FROM picture WHERE image = ? AND {ALIVE}", (image,))
                if ids := [id_ for (id_,) in cursor if id_ not in self.damaged]:
                    known[image] = ids
        return known

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Rows by id; an id that is not stored is left out."""
        with self.reading() as run:
            rows, damaged = select_rows(run, list(ids))
        self._name_damaged(damaged)
        return rows

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        """Value of one column by id; ids that are not stored or have no value are left out."""
        with self.reading() as run:
            groups = select_column(run, column, ids)
        return {id_: value for id_, value in groups.items() if id_ not in self.damaged}

    def values(self, column: str, limit: int) -> list[Value]:
        """Up to ``limit`` distinct values of a column."""
        with self.reading() as run:
            return select_values(run, column, limit)

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG thumbnails by id; pictures without one are left out."""
        with self.reading() as run:
            thumbnails, damaged = select_thumbnails(run, list(ids), ALIVE)
        if damaged:
            self._warn_of_damage(damaged, "the thumbnail")
        return thumbnails

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks.

        The file is not locked between two chunks.
        """
        while chunk := self._vectors_of_some(last_id):
            ids, vectors = self._decoded(chunk)
            last_id = chunk[-1][0]
            if len(ids):
                yield ids, vectors

    def _vectors_of_some(self, last_id: int) -> list[StoredVector]:
        with self.reading() as run:
            # LEFT JOIN, so that a picture without a vector is reported as damage.
            return run(
                "SELECT id, data, vector.checksum FROM picture LEFT JOIN vector ON picture = id "
                f"WHERE id > ? AND {ALIVE} ORDER BY id LIMIT ?",
                (last_id, _CHUNK_ROWS),
            ).fetchall()

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; an id that is not stored is left out."""
        with self.reading() as run:
            chunk = run(
                f"SELECT picture, data, checksum FROM vector WHERE picture {AMONG}",
                (json.dumps(list(ids)),),
            ).fetchall()
        stored_ids, vectors = self._decoded(chunk)
        return dict(zip(stored_ids.tolist(), vectors, strict=True))

    def _decoded(self, chunk: Sequence[StoredVector]) -> tuple[Ids, Vectors]:
        """The intact vectors; damaged ones are named."""
        ids, vectors, damaged = decoded(chunk, self.dim)
        self._name_damaged(damaged, "the vector")
        if self.damaged.isdisjoint(ids.tolist()):
            return ids, vectors
        intact = [row for row, id_ in enumerate(ids.tolist()) if id_ not in self.damaged]
        return ids[intact], vectors[intact]

    def _intact(self, cursor: sqlite3.Cursor) -> Ids:
        """The ids that a query selects, without those of damaged pictures."""
        return _ids(cursor if not self.damaged else (r for r in cursor if r[0] not in self.damaged))

    def places(self) -> Iterator[Place]:
        """Origin of each picture that has a path, by ascending id; read in chunks."""
        last = 0
        while True:
            with self.reading() as run:
                chunk = select_places(run, last, _CHUNK_ROWS)
            yield from (place for place in chunk if place.id not in self.damaged)
            if not chunk:
                return
            last = chunk[-1].id

    def has_numbered_pids(self) -> bool:
        """Whether an older version may have replaced some pids with numbers of its own."""
        with self.reading() as run:
            cursor = run(
                "SELECT EXISTS (SELECT 1 FROM picture WHERE typeof(pid) = 'integer' "
                "AND size IS NULL AND id <= (SELECT numbered_until FROM gallery))"
            )
            return bool(cursor.fetchone()[0])

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the columns of rows in one transaction; vectors and thumbnails stay."""
        with self.writing() as connection:
            rewrite_rows(connection, rows)

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        """Write all rows in one transaction; durable once this returns.

        Returns:
            Ids in the order of ``vectors``; a skipped picture keeps its old id.
        """
        with self.writing() as connection:
            known = self.known(paths_once(entries)) if on_duplicate != "add" else {}
            if on_duplicate == "error" and known:
                raise GalleryError(
                    f"{self.path} holds {next(iter(known))!r:.200} already. Pass "
                    "on_duplicate='skip' to keep what is there, or 'replace' to put the new "
                    "picture in its place."
                )
            skipped = known if on_duplicate == "skip" else {}
            rows = [row for row, entry in enumerate(entries) if entry.image not in skipped]
            new = iter(insert_rows(connection, vectors[rows], [entries[row] for row in rows]))
            all_ids = [
                min(skipped[entry.image]) if entry.image in skipped else next(new)
                for entry in entries
            ]
            removed: list[int] = []
            if on_duplicate == "replace":
                # After the insert, so that an unpacked file that a new row uses is kept.
                replaced = json.dumps(list(chain.from_iterable(known.values())))
                removed = remove_rows(connection, f"id {AMONG}", (replaced,))
            if on_duplicate != "add":
                removed += self._remove_damaged(connection, entries)
        if removed:
            self._erase(removed)
        return all_ids

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], known: Set[int]
    ) -> Inserted:
        """Write rows in one transaction, except pictures that another process has added."""
        with self.writing() as connection:
            theirs = overtaken(self, entries, known)
            rows = [row for row in range(len(entries)) if row not in theirs]
            new = iter(insert_rows(connection, vectors[rows], [entries[row] for row in rows]))
            ids = [theirs[row] if row in theirs else next(new) for row in range(len(entries))]
            removed = self._remove_damaged(connection, entries)
        if removed:
            self._erase(removed)
        return Inserted(ids, len(theirs))

    def _remove_damaged(
        self, connection: sqlite3.Connection, entries: Sequence[Entry]
    ) -> list[int]:
        """Delete the damaged rows whose pictures are added again; return their ids."""
        if not self.damaged:
            return []
        damaged = json.dumps(sorted(self.damaged))
        removed: list[int] = []
        for image in {entry.image for entry in entries if entry.image is not None}:
            condition = f"image = ? AND id {AMONG}"
            removed += remove_rows(connection, condition, (image, damaged))
        return removed

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        """Write all batches in one transaction, with one in memory at a time; return the ids."""
        ids: list[int] = []
        with self.writing() as connection:
            for vectors, entries in batches:
                ids += insert_rows(connection, vectors, entries)
        return ids

    def delete(self, ids: Iterable[int]) -> int:
        """Delete rows and erase their bytes from the file; return the number of rows.

        Raises:
            GalleryError: The file cannot be written. The rows may be deleted and their bytes not
                yet erased, for example if the disk is full.
        """
        with self.writing() as connection:
            removed = remove_rows(connection, f"id {AMONG} AND {ALIVE}", (json.dumps(list(ids)),))
        if removed:
            self._erase(removed)
        return len(removed)


def _ids(rows: Iterable[tuple[int]]) -> Ids:
    return np.fromiter((id_ for (id_,) in rows), np.int64)
