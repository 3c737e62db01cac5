"""The gallery's file: one SQLite database that loses no acknowledged write.

Vectors and thumbnails have tables of their own, so that a filter reads neither. Ids are
never given twice, which lets an index in memory follow the file by "ids above the last".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.damage import StoredVector, decoded
from finegrain.gallery.entries import Entry, OnDuplicate, paths_once
from finegrain.gallery.filters.conditions import Value
from finegrain.gallery.filters.sql import to_sql
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.row import Place, Row
from finegrain.gallery.sqlite.gallery_file import GalleryFile
from finegrain.gallery.sqlite.selection import (
    select_column,
    select_places,
    select_rows,
    select_values,
)
from finegrain.gallery.sqlite.statements import (
    ALIVE,
    AMONG,
    EXPIRED,
    insert_rows,
    remove_rows,
    rewrite_rows,
)
from finegrain.index.exact import Ids, Vectors
from finegrain.records import Scalar

_CHUNK_ROWS = 8192


class Store(GalleryFile):
    """The database behind a gallery. Every method may be called from any thread."""

    def count(self) -> int:
        # Without a condition SQLite counts by pages, and what has expired is found by its
        # index: every query asks, and must not read every row for it.
        every, expired = (f"SELECT count(*) FROM picture{of}" for of in ("", f" WHERE {EXPIRED}"))
        with self.reading() as run:
            return int(run(f"SELECT ({every}) - ({expired})").fetchone()[0])

    def ids(self) -> Ids:
        """All ids, ascending."""
        with self.reading() as run:
            return _ids(run(f"SELECT id FROM picture WHERE {ALIVE} ORDER BY id"))

    def ids_where(self, expression: str) -> Ids:
        """Ids of the rows that match a filter, ascending."""
        with self.reading() as run:
            condition = to_sql(parse(expression, self.columns()))
            found = run(
                f"SELECT id FROM picture WHERE {ALIVE} AND {condition.text}", condition.parameters
            )
            return np.sort(_ids(found))

    def ids_expired(self, since: str, until: str) -> Ids:
        """Ids, still in the file, whose time was over between two times, the first excluded."""
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
            found = run(f"SELECT image FROM picture WHERE image IS NOT NULL AND {ALIVE}")
            return {image for (image,) in found}

    def known(self, images: Iterable[str]) -> dict[str | None, list[int]]:
        known: dict[str | None, list[int]] = {}
        with self.reading() as run:
            for image in images:  # one by one, as SQLite's JSON cuts a text at a null character
                found = run(f"SELECT id FROM picture WHERE image = ? AND {ALIVE}", (image,))
                if ids := [id_ for (id_,) in found]:
                    known[image] = ids
        return known

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Those of the rows that are there, by id."""
        with self.reading() as run:
            return select_rows(run, ids)

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        """The value of one column for those of the ids that are there and have one."""
        with self.reading() as run:
            return select_column(run, column, ids)

    def values(self, column: str, limit: int) -> list[Value]:
        """Some of the different values that a column has."""
        with self.reading() as run:
            return select_values(run, column, limit)

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG files of those of the pictures that have one."""
        with self.reading() as run:
            return dict(
                run(
                    "SELECT picture, jpeg FROM thumbnail JOIN picture ON id = picture "
                    f"WHERE picture {AMONG} AND {ALIVE}",
                    (json.dumps(list(ids)),),
                ).fetchall()
            )

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks.

        Between two chunks others may use the file.
        """
        while chunk := self._vectors_of_some(last_id):
            yield decoded(chunk, self.dim, self.path)
            last_id = chunk[-1][0]

    def _vectors_of_some(self, last_id: int) -> list[StoredVector]:
        with self.reading() as run:
            # A picture that has no vector is seen here, too.
            return run(
                "SELECT id, data, checksum FROM picture LEFT JOIN vector ON picture = id "
                f"WHERE id > ? AND {ALIVE} ORDER BY id LIMIT ?",
                (last_id, _CHUNK_ROWS),
            ).fetchall()

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` of those of the ids that are there."""
        with self.reading() as run:
            chunk = run(
                f"SELECT picture, data, checksum FROM vector WHERE picture {AMONG}",
                (json.dumps(list(ids)),),
            ).fetchall()
        if not chunk:
            return {}
        found, vectors = decoded(chunk, self.dim, self.path)
        return dict(zip(found.tolist(), vectors, strict=True))

    def places(self) -> Iterator[Place]:
        """Where each picture with a path came from, by ascending id; in chunks."""
        last = 0
        while True:
            with self.reading() as run:
                chunk = select_places(run, last, _CHUNK_ROWS)
            yield from chunk
            if not chunk:
                return
            last = chunk[-1].id

    def has_numbered_pids(self) -> bool:
        """Whether there are pids that an older version may have numbered itself."""
        with self.reading() as run:
            found = run(
                "SELECT EXISTS (SELECT 1 FROM picture WHERE typeof(pid) = 'integer' "
                "AND size IS NULL AND id <= (SELECT numbered_until FROM gallery))"
            )
            return bool(found.fetchone()[0])

    def rewrite(self, entries: Mapping[int, Entry]) -> None:
        """Write what rows say anew, in one transaction; vectors and thumbnails stay."""
        with self.writing() as connection:
            rewrite_rows(connection, entries)

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        """Write all rows in one transaction; durable when this returns.

        Returns:
            Ids in the order given; for a picture that was skipped, the one it had.
        """
        with self.writing() as connection:
            known = self.known(paths_once(entries)) if on_duplicate != "add" else {}
            removed: list[int] = []
            if on_duplicate == "error" and known:
                raise GalleryError(
                    f"{self.path} holds {next(iter(known))!r:.200} already. Pass "
                    "on_duplicate='skip' to keep what is there, or 'replace' to put the new "
                    "picture in its place."
                )
            if on_duplicate == "replace":
                replaced = json.dumps(list(chain.from_iterable(known.values())))
                removed = remove_rows(connection, f"id {AMONG}", (replaced,))
            skipped = known if on_duplicate == "skip" else {}
            rows = [row for row, entry in enumerate(entries) if entry.image not in skipped]
            new = iter(insert_rows(connection, vectors[rows], [entries[row] for row in rows]))
            given = [
                min(skipped[entry.image]) if entry.image in skipped else next(new)
                for entry in entries
            ]
        if removed:
            self._erase(removed)
        return given

    def last_id(self) -> int:
        """The highest id that was given so far."""
        with self.reading() as run:
            (last,) = run(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'picture'"
            ).fetchone()
            return int(last)

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], since: int, own: Set[int]
    ) -> list[int]:
        """Write rows in one transaction, but for paths that another process has just added.

        Args:
            vectors: ``[N, D]``.
            entries: ``N`` rows.
            since: The highest id when it was decided to add them.
            own: Ids that the caller has added since.

        Returns:
            Ids in the order given; for a path that was added meanwhile, the one it has.
        """
        with self.writing() as connection:
            known = self.known({e.image for e in entries if e.image is not None})
            foreign = ((image, [i for i in ids if i > since]) for image, ids in known.items())
            overtaken = {image: ids[0] for image, ids in foreign if ids and not own & {*ids}}
            rows = [row for row, entry in enumerate(entries) if entry.image not in overtaken]
            new = iter(insert_rows(connection, vectors[rows], [entries[row] for row in rows]))
            return [
                overtaken[entry.image] if entry.image in overtaken else next(new)
                for entry in entries
            ]

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        """Write all batches in one transaction, one at a time in memory; returns the ids."""
        ids: list[int] = []
        with self.writing() as connection:
            for vectors, entries in batches:
                ids += insert_rows(connection, vectors, entries)
        return ids

    def delete(self, ids: Iterable[int]) -> int:
        """Remove rows so that their bytes are gone from the file; returns how many.

        Raises:
            GalleryError: Among others when the rows are deleted but their bytes could not be
                overwritten, for lack of space.
        """
        with self.writing() as connection:
            removed = remove_rows(connection, f"id {AMONG} AND {ALIVE}", (json.dumps(list(ids)),))
        if removed:
            self._erase(removed)
        return len(removed)


def _ids(cursor: sqlite3.Cursor) -> Ids:
    return np.fromiter((row[0] for row in cursor), np.int64)
