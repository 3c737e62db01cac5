"""The gallery's file: one SQLite database that loses no acknowledged write.

Vectors and thumbnails have tables of their own, so that a filter reads neither. Ids are
never given twice, which lets an index in memory follow the file by "ids above the last".
A picture whose time is over is out of every answer at once, and out of the file with the
next deletion, :meth:`Store.expire` or opening.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery import times
from finegrain.gallery.damage import StoredVector, decoded
from finegrain.gallery.entries import Entry, OnDuplicate, paths_once
from finegrain.gallery.filter_sql import sql_is_like, to_sql
from finegrain.gallery.filter_syntax import parse
from finegrain.gallery.filters import Value
from finegrain.gallery.index import Ids, Vectors
from finegrain.gallery.row import Place, Row
from finegrain.gallery.schema import (
    as_gallery_errors,
    identity,
    open_database,
    short,
    transaction,
)
from finegrain.gallery.selection import (
    select_column,
    select_places,
    select_rows,
    select_values,
)
from finegrain.gallery.statements import (
    ALIVE,
    AMONG,
    EXPIRED,
    insert_rows,
    remove_rows,
    rewrite_rows,
)
from finegrain.records import Scalar

_CHUNK_ROWS = 8192


class Store:
    """The database behind a gallery. Every method may be called from any thread."""

    def __init__(
        self, path: Path, *, fingerprint: str | None, dim: int | None, create: bool
    ) -> None:
        database = open_database(path, fingerprint=fingerprint, dim=dim, create=create)
        self.path = path
        self.fingerprint = database.fingerprint
        self.dim = database.dim
        self.read_only = database.read_only
        self._connection = database.connection
        self._connection.create_function("utc_now", 0, lambda: times.utc_text(times.now()))
        self._connection.create_function("is_like", 2, sql_is_like, deterministic=True)
        self._lock = threading.RLock()
        self.tidy(rewrite=True)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

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
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks."""
        with self.reading() as run:
            cursor = run(
                "SELECT picture, data, checksum FROM vector JOIN picture ON id = picture "
                f"WHERE picture > ? AND {ALIVE} ORDER BY picture",
                (last_id,),
            )
            while chunk := cursor.fetchmany(_CHUNK_ROWS):
                yield self._checked(chunk)

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` of those of the ids that are there."""
        with self.reading() as run:
            chunk = run(
                f"SELECT picture, data, checksum FROM vector WHERE picture {AMONG}",
                (json.dumps(list(ids)),),
            ).fetchall()
        if not chunk:
            return {}
        found, vectors = self._checked(chunk)
        return dict(zip(found.tolist(), vectors, strict=True))

    def data_version(self) -> int:
        """A number that changes when another connection has written."""
        with self.reading() as run:
            return int(run("PRAGMA data_version").fetchone()[0])

    def check_identity(self) -> None:
        """See that the vectors in the file are still of the plan that it was opened for.

        Raises:
            GalleryError: It was reindexed meanwhile.
        """
        with self.reading():
            fingerprint, dim = identity(self._connection, self.path)
        if (fingerprint, dim) != (self.fingerprint, self.dim):
            raise GalleryError(
                f"{self.path} has been reindexed with plan {short(fingerprint)} since it was "
                f"opened for plan {short(self.fingerprint)}. Open it again with the new plan."
            )

    def adopt(self, fingerprint: str | None, dim: int) -> None:
        """Go on with the vectors of the plan that the file has just been reindexed with."""
        with self._lock:
            self.fingerprint, self.dim = fingerprint, dim

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
            self.check_identity()
            known = self.known(paths_once(entries)) if on_duplicate != "add" else {}
            if on_duplicate == "error" and known:
                raise GalleryError(
                    f"{self.path} holds {next(iter(known))!r:.200} already. Pass "
                    "on_duplicate='skip' to keep what is there, or 'replace' to put the new "
                    "picture in its place."
                )
            if on_duplicate == "replace":
                replaced = json.dumps(list(chain.from_iterable(known.values())))
                remove_rows(connection, f"id {AMONG}", (replaced,))
            skipped = known if on_duplicate == "skip" else {}
            rows = [row for row, entry in enumerate(entries) if entry.image not in skipped]
            new = iter(insert_rows(connection, vectors[rows], [entries[row] for row in rows]))
            given = [
                min(skipped[entry.image]) if entry.image in skipped else next(new)
                for entry in entries
            ]
        if on_duplicate == "replace" and known:
            self.scrub()
        return given

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        """Write all batches in one transaction, one at a time in memory; returns the ids."""
        ids: list[int] = []
        with self.writing() as connection:
            self.check_identity()
            for vectors, entries in batches:
                ids += insert_rows(connection, vectors, entries)
        return ids

    def delete(self, ids: Iterable[int]) -> int:
        """Remove rows so that their bytes are gone from the file; returns how many.

        Raises:
            GalleryError: Among others when the rows are deleted but the file could not be
                rewritten, for lack of space.
        """
        with self.writing() as connection:
            removed = remove_rows(connection, f"id {AMONG} AND {ALIVE}", (json.dumps(list(ids)),))
        if removed:
            self.scrub()
        return removed

    def expire(self) -> int:
        """Remove the rows whose time is over, bytes included; returns how many."""
        with self.writing() as connection:
            removed = remove_rows(connection, EXPIRED)
        self.scrub()
        return removed

    def tidy(self, *, rewrite: bool) -> None:
        """Remove what has expired unless another process is writing, without waiting for it.

        Failing does no harm: what has expired is in no answer, and the next call tries again.

        Args:
            rewrite: Also rewrite the file, where a deletion still asks for it. Else the
                deleted cells are zeroed, which is quick.
        """
        with self._lock, as_gallery_errors(self.path):
            (patience,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                expired = f"SELECT EXISTS (SELECT 1 FROM picture WHERE {EXPIRED})"
                if self._connection.execute(expired).fetchone()[0]:
                    with transaction(self._connection):
                        remove_rows(self._connection, EXPIRED)
                if rewrite:
                    _scrub(self._connection)
            except sqlite3.OperationalError:
                pass  # busy, full or read-only
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {patience}")

    def scrub(self) -> None:
        """Rewrite the file without what was deleted, where that was not done yet."""
        with self._lock, as_gallery_errors(self.path):
            _scrub(self._connection)

    @contextmanager
    def reading(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """The connection's ``execute``, alone and with errors of ours."""
        with self._lock, as_gallery_errors(self.path):
            yield self._connection.execute

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction that is durable afterwards, or undone."""
        if self.read_only:
            raise GalleryError(
                f"{self.path} is open for reading only, since the file or its folder cannot be "
                "written. Give write access to both, or copy it to where you may write."
            )
        with self._lock, as_gallery_errors(self.path), transaction(self._connection):
            yield self._connection

    def _checked(self, chunk: Sequence[StoredVector]) -> tuple[Ids, Vectors]:
        return decoded(chunk, self.dim, self.path)


def _scrub(connection: sqlite3.Connection) -> None:
    """Rewrite the file, if it notes that it was not since the last deletion.

    ``secure_delete`` zeroes the deleted cells themselves, but not the older copies of them
    that b-tree pages keep in unused space after a split or merge. By the note an interruption
    is made up for at the next opening. It counts deletions, as others may come meanwhile.
    """
    deletions, scrubbed = connection.execute("SELECT deletions, scrubbed FROM gallery").fetchone()
    if scrubbed >= deletions:
        return
    connection.execute("VACUUM")
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if not busy:  # else a reader still holds on to the old pages
        connection.execute("UPDATE gallery SET scrubbed = max(scrubbed, ?)", (deletions,))


def _ids(cursor: sqlite3.Cursor) -> Ids:
    return np.fromiter((row[0] for row in cursor), np.int64)
