"""A gallery's files, which lose no acknowledged write: an SQLite database, and its vectors.

Vectors are in a file of their own (:mod:`finegrain.gallery.sqlite.vectors`), and thumbnails in a
separate table, so that a filter reads neither. Ids are never reused, so that an index in memory
finds new rows by "ids above the last one".

An expired picture leaves all results at once, and the file soon after
(:mod:`finegrain.gallery.clock`). The bytes of deleted pictures are overwritten.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import warnings
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
    Set,
)
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery.clock import warn_of_doubt
from finegrain.gallery.damage import Fault, Remedy
from finegrain.gallery.duplicates import Inserted, OnDuplicate, duplicates, insert_except, overtaken
from finegrain.gallery.filters.conditions import Condition, Value
from finegrain.gallery.filters.sql import to_sql
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.row import Entry, Place, Row, meets
from finegrain.gallery.sqlite.biases import (
    bias_revision,
    biases_of,
    biases_since,
    write_biases,
)
from finegrain.gallery.sqlite.connections import (
    Connections,
    as_gallery_errors,
    full_disk_errors,
    identity,
    limited,
    log_of,
    patience,
)
from finegrain.gallery.sqlite.erasure import Later, erase
from finegrain.gallery.sqlite.expiry import doubted, is_due, look
from finegrain.gallery.sqlite.files import vectors_of
from finegrain.gallery.sqlite.moving import is_moved, move_some
from finegrain.gallery.sqlite.rows import (
    ALIVE,
    AMONG,
    EXPIRED,
    Run,
    add_checksums,
    damaged_rows,
    insert_rows,
    lacks_checksums,
    remove_expired,
    remove_rows,
    repair_derived,
    rewrite_rows,
    select_column,
    select_places,
    select_rows,
    select_thumbnails,
    select_values,
    stored_rows,
)
from finegrain.gallery.sqlite.schema import open_database, short
from finegrain.gallery.sqlite.vector_file import StoredRows, checksums_of
from finegrain.gallery.sqlite.vectors import StoredVectors, state_of
from finegrain.index.block import StoredBlock
from finegrain.index.exact import Ids, Vectors
from finegrain.records import Scalar

CHECKED_BYTES = 8 << 20
"""Largest database for which opening runs SQLite's integrity check, which takes about 0.2 s."""

ERASE_SECONDS = 5.0
"""How long a deletion waits for readers that began before it."""

_BRIEF_SECONDS = 0.2
_CHUNK_ROWS = 8192
_SHOWN = 20


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
        self._connections = Connections(path, database.connect, read_only=database.read_only)
        self._connections.adopt(database.connection)
        self._later = Later(self.tidy)
        self._naming = threading.Lock()
        self.damaged: frozenset[int] = frozenset()
        """Ids of pictures whose row or vector was found to be damaged; no answer holds them. They
        stay here when their rows are deleted, since ids are never used again."""
        self._vectors = StoredVectors(
            path, read_only=database.read_only, on_damage=self._name_damaged_vectors
        )
        try:
            if not self.erased():  # another process was interrupted, or is still at it
                self._connections.scan_whole()
            self._move_vectors()
            self._complete_checksums()
            self._check_at_opening(lost_log=database.lost_log)
            if not self.tidy():
                self._later.begin()
            self._compact_if_worth_it()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._later.stop()
        self._connections.close()
        self._vectors.close()

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
        with self.reading():
            return self.ids_matching(parse(expression, self.columns()))

    def ids_matching(self, condition: Condition) -> Ids:
        """Ids of the rows that match a parsed filter, ascending."""
        with self.reading() as run:
            return self._matching(run, condition)

    def ids_matching_within(self, condition: Condition, num_steps: int) -> Ids | None:
        """Like :meth:`ids_matching`; None if it takes more than about so many steps of SQLite."""
        with self.reading() as run, self._connections.reading() as connection:
            try:
                with limited(connection, num_steps):
                    return self._matching(run, condition)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                return None

    def _matching(self, run: Run, condition: Condition) -> Ids:
        sql = to_sql(condition)
        cursor = run(f"SELECT id FROM picture WHERE {ALIVE} AND {sql.text}", sql.parameters)
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

    def known(
        self, images: Iterable[str], *, with_damaged: bool = False
    ) -> dict[str | None, list[int]]:
        hidden = frozenset() if with_damaged else self.damaged
        known: dict[str | None, list[int]] = {}
        with self.reading() as run:
            for image in images:  # not as a JSON list: SQLite cuts a text at a null character there
                cursor = run(f"SELECT id FROM picture WHERE image = ? AND {ALIVE}", (image,))
                if ids := [id_ for (id_,) in cursor if id_ not in hidden]:
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
        while True:
            with self.reading() as run:
                rows = run(
                    f"SELECT id, vector_checksum FROM picture WHERE id > ? AND {ALIVE} "
                    "ORDER BY id LIMIT ?",
                    (last_id, _CHUNK_ROWS),
                ).fetchall()
                if not rows:
                    return
                ids, vectors = self._vectors_of(run, rows)
            last_id = rows[-1][0]
            if len(ids):
                yield ids, vectors

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; an id that is not stored is left out."""
        with self.reading() as run:
            rows = run(
                f"SELECT id, vector_checksum FROM picture WHERE id {AMONG} ORDER BY id",
                (json.dumps(list(ids)),),
            ).fetchall()
            intact, vectors = self._vectors_of(run, rows)
        return dict(zip(intact.tolist(), vectors, strict=True))

    def damaged_now(self) -> frozenset[int]:
        """Ids of stored pictures whose damage was detected."""
        if not self.damaged:
            return self.damaged
        with self.reading() as run:
            among = (json.dumps(sorted(self.damaged)),)
            return frozenset(_ids(run(f"SELECT id FROM picture WHERE id {AMONG}", among)).tolist())

    def damaged_among(self, ids: Iterable[int]) -> set[int]:
        """Ids of the damaged pictures among some; reads their vectors and thumbnails."""
        asked = list(ids)
        self.vectors(asked)
        with self.reading() as run:
            _, damaged = select_thumbnails(run, asked, ALIVE)
        return {*damaged, *self.damaged.intersection(asked)}

    def _vectors_of(self, run: Run, rows: Sequence[tuple[int, int]]) -> tuple[Ids, Vectors]:
        """The intact vectors of pictures, by ids and checksums; damaged ones are named."""
        ids, vectors, damaged = self._vectors.read(run, rows)
        self._name_damaged_vectors(damaged)
        if self.damaged.isdisjoint(ids.tolist()):
            return ids, vectors
        intact = [row for row, id_ in enumerate(ids.tolist()) if id_ not in self.damaged]
        return ids[intact], vectors[intact]

    def vector_faults(self, run: Run) -> Iterator[Fault]:
        """Descriptions of all damage to the vectors and their codes; reads all of them."""
        with self._errors():
            yield from self._vectors.faults(run)

    def slots(self) -> tuple[int, int]:
        """Number of places for vectors in use, and of full blocks of them."""
        with self.reading() as run:
            return state_of(run).num_slots, self._vectors.blocks(run)[1]

    def blocks(self) -> tuple[str | None, int]:
        """Identity of the file of vectors, and the number of its blocks that have codes."""
        with self.reading() as run:
            return self._vectors.blocks(run)

    def block(self, number: int) -> StoredBlock:
        """A full block of vectors; it may hold pictures that have expired or are damaged."""
        with self.reading() as run:
            return self._vectors.block(run, number)

    def lost_ids(self) -> Ids:
        """Ids of pictures that were deleted at any time, or are damaged."""
        with self.reading() as run:
            lost = self._vectors.lost_ids(run)
        return np.concatenate([lost, np.array(sorted(self.damaged), np.int64)])

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

    def change(
        self, ids: Sequence[int], condition: Condition | None, changed: Callable[[Row], Row]
    ) -> int:
        """Change the columns of those rows that match a condition, in one transaction."""
        with self.writing() as connection:  # nobody changes them between reading and writing
            rows = self.rows(ids).values()
            matching = [row for row in rows if condition is None or meets(row, condition)]
            rewrite_rows(connection, [changed(row) for row in matching])
        return len(matching)

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        """Write all rows in one transaction; durable once this returns.

        Returns:
            Ids in the order of ``vectors``; a skipped picture keeps its old id.
        """
        with self.writing() as connection:
            rows = duplicates(self, entries, on_duplicate)
            ids = insert_except(rows.kept, vectors, entries, partial(self._write_rows, connection))
            removed: list[int] = []
            if rows.replaced:
                # After the insert, so that an unpacked file that a new row uses is kept.
                removed = remove_rows(connection, f"id {AMONG}", (json.dumps(rows.replaced),))
            if on_duplicate != "add":
                removed += self._remove_damaged(connection, entries)
        if removed:
            self._erase(removed)
        return ids

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], known: Set[int]
    ) -> Inserted:
        """Write rows in one transaction, except pictures that another process has added."""
        with self.writing() as connection:
            theirs = overtaken(self, entries, known)
            ids = insert_except(theirs, vectors, entries, partial(self._write_rows, connection))
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
                ids += self._write_rows(connection, vectors, entries)
        return ids

    def _write_rows(
        self, connection: sqlite3.Connection, vectors: Vectors, entries: Sequence[Entry]
    ) -> range:
        checksums = checksums_of(vectors)
        ids = insert_rows(connection, checksums.tolist(), entries)
        if ids:
            self._vectors.append(connection, np.array(ids, np.int64), checksums, vectors)
        if biases := {id_: e.bias for id_, e in zip(ids, entries, strict=True) if e.bias}:
            write_biases(connection, list(biases), np.array([*biases.values()], np.float32))
        return ids

    def delete(self, ids: Iterable[int]) -> int:
        """Delete rows and erase their bytes from the file; return the number of rows.

        Raises:
            GalleryError: The file cannot be written. The rows may be deleted and their bytes not
                yet erased, for example if the disk is full.
        """
        with self.writing() as connection:
            # The time at which a damaged picture expires may be wrong.
            asked = list(ids)
            self._name_damaged(stored_rows(connection.execute, asked, EXPIRED)[1])
            removed = remove_rows(
                connection,
                f"id {AMONG} AND ({ALIVE} OR id {AMONG})",
                (json.dumps(asked), json.dumps(sorted(self.damaged))),
            )
        if removed:
            self._erase(removed)
        return len(removed)

    def delete_where(self, expression: str) -> int:
        """Delete the rows that match a filter, as of the moment of the deletion."""
        with self.writing() as connection:
            ids = self.ids_where(expression)
            removed = remove_rows(connection, f"id {AMONG}", (json.dumps(ids.tolist()),))
        if removed:
            self._erase(removed)
        return len(removed)

    def set_biases(self, ids: Sequence[int], values: Vectors) -> int:
        """Set the biases of pictures; return the number of those that are stored."""
        with self.writing() as connection:
            return write_biases(connection, ids, values)

    def biases(self, ids: Iterable[int]) -> dict[int, float]:
        """Biases by id; ids that were never given one are left out."""
        with self.reading() as run:
            biases = biases_of(run, ids)
        self._name_damaged(biases.damaged, "the bias")
        return dict(zip(biases.ids.tolist(), biases.values.tolist(), strict=True))

    def bias_revision(self) -> int:
        """A counter that grows when any process changes biases."""
        with self.reading() as run:
            return bias_revision(run)

    def biases_since(self, revision: int) -> tuple[Ids, Vectors]:
        """Ids, ascending, and biases of pictures that were changed after a revision."""
        with self.reading() as run:
            biases = biases_since(run, revision)
        self._name_damaged(biases.damaged, "the bias")
        return biases.ids, biases.values

    def deletions(self) -> int:
        """A counter that grows when any process deletes rows."""
        with self.reading() as run:
            return int(run("SELECT deletions FROM gallery").fetchone()[0])

    @contextmanager
    def switching(self) -> Iterator[sqlite3.Connection]:
        """Like :meth:`writing`, but the block may switch the gallery to another plan."""
        with self._connections.lock:
            with self.writing() as connection:
                yield connection
                now = identity(connection, self.path)
            switched = now != (self.fingerprint, self.dim)
            self.fingerprint, self.dim = now
        if switched:
            self._name_new_file()
            self._forget_plan()
            self._erase([])
            self._shrink()

    def replace_vectors(
        self, connection: sqlite3.Connection, dim: int, chunks: Iterable[StoredRows]
    ) -> None:
        """Write other vectors of all pictures to a new file, inside :meth:`switching`."""

        def noted() -> Iterator[StoredRows]:
            for ids, checksums, vectors in chunks:
                connection.executemany(
                    "UPDATE picture SET vector_checksum = ? WHERE id = ?",
                    zip(checksums.tolist(), ids.tolist(), strict=True),
                )
                yield ids, checksums, vectors

        self._vectors.replace(connection, dim, noted())

    def compact(self) -> None:
        """Write the vectors to a new file without the places of deleted pictures.

        This also repairs what can be computed again: codes, and ids and checksums of the file.
        """
        try:
            with self.writing() as connection:
                self._vectors.verify(connection.execute)
                repair_derived(connection, self._vectors.last_id(connection.execute))
                rows = self._vectors.rows(connection.execute)
                self._vectors.replace(connection, self.dim, rows)
        except GalleryError:
            with suppress(GalleryError):
                self.tidy()  # the new file would keep a full disk full
            raise
        self._name_new_file()
        self._shrink()

    def _name_new_file(self) -> None:
        with self.reading() as run:
            self._vectors.last_id(run)  # opening it gives it its name

    def _compact_if_worth_it(self) -> None:
        """Compact a file that is mostly deleted, unless another process writes."""
        with self.reading() as run:
            if self.read_only or not self._vectors.is_mostly_deleted(run):
                return
        with (
            suppress(GalleryError),
            self._errors(),
            self._connections.lock,
            patience(self._connections.writer(), 0),
        ):
            self.compact()

    def _forget_plan(self) -> None:
        """Erase data of the old plan that is stored outside the file."""

    def expire(self, *, trust_clock: bool = False) -> int:
        """Remove the expired rows and erase their bytes; return their number."""
        with self.writing() as connection:
            removed, damaged = remove_expired(connection, trust_clock=trust_clock)
            moment = doubted(connection.execute)
        self._erase(removed)
        self._name_damaged(damaged)
        if moment is not None:
            warn_of_doubt(self.path, moment, stacklevel=4)
        return len(removed)

    def tidy(self) -> bool:
        """Note the time, remove expired pictures and erase deleted ones, without waiting.

        A failure is harmless: expired pictures are in no result, and the next call tries again.

        Returns:
            Whether there is nothing left to do.
        """
        if self.read_only:
            return True
        with (
            self._errors(),
            self._connections.lock,
            patience(self._connections.writer(), 0),
        ):
            try:
                if self._has_expired() or self._is_clock_due():
                    with self._connections.writing() as connection:
                        removed, damaged = remove_expired(connection)
                    self._forget(removed)
                    self._name_damaged(damaged)
                with self.reading() as run:
                    is_untidy = self._vectors.is_untidy(run)
                if is_untidy:
                    with self._connections.writing() as connection:
                        self._vectors.tidy(connection)
                return erase(self._connections, _BRIEF_SECONDS, self._vectors.erase)
            except sqlite3.OperationalError:
                return False  # the file is locked, or the disk is full

    def _move_vectors(self) -> None:
        """Move the vectors that an older version wrote to a table into their file.

        Raises:
            GalleryError: They cannot be moved. The next opening continues.
        """
        with self.reading() as run:
            if is_moved(run):
                return
        if self.read_only:
            raise GalleryError(
                f"{self.path} is being brought to a new format, which was interrupted, and cannot "
                "be written. Open it once where it can be, or a copy."
            )
        is_complete = False
        while not is_complete:
            with self.writing() as connection:
                is_complete = is_moved(connection.execute)  # another process may help
                if not is_complete:
                    move_some(connection, self._vectors, self.dim)
        self._shrink()

    def _shrink(self) -> None:
        """Give the space of moved vectors back; where that fails, the file only stays larger."""
        with suppress(sqlite3.Error), self._connections.lock:
            self._connections.writer().execute("VACUUM")
            self._connections.checkpoint()

    def _complete_checksums(self) -> None:
        """Compute the checksums of rows that an older version wrote.

        Each batch is durable, so the next opening continues after an interruption. Rows without a
        checksum are served meanwhile.
        """
        with self.reading() as run:
            is_complete = self.read_only or not lacks_checksums(run)
        try:
            while not is_complete:
                with self.writing() as connection:
                    add_checksums(connection)
                    is_complete = not lacks_checksums(connection.execute)
        except GalleryError as error:
            if not isinstance(error.__cause__, sqlite3.OperationalError | OSError):
                raise
            # The file is locked, or the disk is full.

    def _name_damaged(self, ids: Collection[int], what: str = "the row") -> None:
        """Warn of damaged pictures, once each, and leave them out of all answers."""
        with self._naming:  # searches name damage from several threads
            new = sorted(set(ids) - self.damaged)
            self.damaged |= set(new)
        if new:
            self._warn_of_damage(new, what)

    def _name_damaged_vectors(self, ids: Collection[int]) -> None:
        self._name_damaged(ids, "the vector")

    def _warn_of_damage(self, ids: Sequence[int], what: str) -> None:
        warnings.warn(
            f"{self.path}: {what} of {_pictures(ids)} is damaged and left out of answers. "
            f"Restore the gallery from a backup. Or: {Remedy.INDEX.value}",
            GalleryWarning,
            stacklevel=4,
        )

    def tidy_soon(self) -> None:
        """Run :meth:`tidy` in a background thread; wait for it for 0.2 s at most."""
        self._later.begin(wait=_BRIEF_SECONDS)

    def _forget(self, ids: Sequence[int]) -> None:
        """Erase data of deleted pictures that is stored outside the file."""

    def _erase(self, removed: Sequence[int]) -> None:
        """Erase deleted pictures; if readers delay it, warn and continue in the background."""
        self._forget(removed)
        with self._errors():
            erased = erase(self._connections, ERASE_SECONDS, self._vectors.erase)
        if not erased:
            self._later.begin()
            warnings.warn(
                f"{self.path}: the pictures are deleted and in no result. Their bytes stay in "
                f"{log_of(self.path).name} while another process still reads an older snapshot. "
                "They are erased when it has finished, at the latest when the gallery is "
                "opened again.",
                GalleryWarning,
                stacklevel=4,
            )

    def erased(self) -> bool:
        """Whether all bytes of deleted pictures are erased."""
        with self.reading() as run:
            deletions, erased = run("SELECT deletions, scrubbed FROM gallery").fetchone()
            return bool(erased >= deletions)

    @contextmanager
    def reading(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """The ``execute`` of a connection that sees one snapshot of the file.

        Errors of SQLite become :class:`GalleryError`.
        """
        nested = self._connections.in_transaction()
        with self._errors(), self._connections.reading() as connection:
            if not nested:
                self._check_identity(connection)
            yield connection.execute

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writing connection, in a transaction that is durable after the block, or undone."""
        if self.read_only:
            raise GalleryError(
                f"{self.path} is open for reading only, since it, its vectors or its folder cannot "
                "be written. Give write access to all of them, or copy it to where you may write."
            )
        with self._errors(), self._connections.writing() as connection:
            self._check_identity(connection)
            self._vectors.require_in_place(connection.execute)
            look(connection)
            yield connection
            self._vectors.sync()

    def copy_to(self, path: Path) -> None:
        """Copy a snapshot of the database and of the vectors to a new gallery."""
        if not self.read_only:
            with self._errors(), self._connections.lock:
                self._connections.use_wal()  # so that others may write meanwhile
        # No vector is overwritten while somebody reads an older snapshot.
        with self.reading() as run, full_disk_errors(path.parent):
            with self._connections.extra() as connection:
                connection.execute("VACUUM INTO ?", (str(path),))
            with closing(sqlite3.connect(path, isolation_level=None)) as copied:
                self._vectors.copy(run, vectors_of(path), copied)

    def _errors(self) -> AbstractContextManager[None]:
        return as_gallery_errors(self.path)

    def _check_identity(self, connection: sqlite3.Connection) -> None:
        """Check that the vectors in the file are still of the plan it was opened for."""
        own = self.fingerprint, self.dim
        stored = identity(connection, self.path)
        if stored != own:
            with self._connections.lock:  # another thread may be switching plans
                own = self.fingerprint, self.dim
        if stored != own:
            raise GalleryError(
                f"{self.path} has been reindexed with plan {short(stored[0])} since it was "
                f"opened for plan {short(own[0])}. Open it again with the new plan."
            )

    def _has_expired(self) -> bool:
        with self._connections.reading() as connection:
            cursor = connection.execute(f"SELECT EXISTS (SELECT 1 FROM picture WHERE {EXPIRED})")
            return bool(cursor.fetchone()[0])

    def _is_clock_due(self) -> bool:
        with self._connections.reading() as connection:
            return is_due(connection)

    def _check_at_opening(self, *, lost_log: bool) -> None:
        """Compare the vectors with the database, and check a file that is small or lost its log."""
        self._repair_vectors()
        with self._errors():
            small = os.stat(self.path).st_size <= CHECKED_BYTES
        if not small and not lost_log:
            return
        with self.reading() as run:
            (count,) = run("SELECT count(*) FROM picture").fetchone()
            faults = [text for (text,) in run("PRAGMA integrity_check(3)") if text != "ok"]
            damaged = [] if faults else list(damaged_rows(run))
        if faults:
            raise GalleryError(
                f"{self.path} is damaged: {'; '.join(faults)}. Restore it from a backup, or index "
                "the pictures again."
            )
        self._name_damaged(damaged)
        if lost_log:
            warnings.warn(
                f"{self.path} was copied while it was in use, or lost {log_of(self.path).name}. It "
                f"holds {count} pictures; what was added or deleted last may be missing. Copy a "
                "gallery with: finegrain gallery backup FILE COPY",
                GalleryWarning,
                stacklevel=5,
            )
            self._scan_whole_file()

    def _repair_vectors(self) -> None:
        """Compare the vectors with the database, and repair their damaged ids and checksums."""
        with self.reading() as run:
            comparison = self._vectors.verify(run)
        if comparison is None:
            return
        self._name_damaged_vectors(comparison.missing)
        if self.read_only:
            return
        with self.writing() as connection:
            recovered = self._vectors.repair(connection)
        if recovered:
            warnings.warn(
                f"{vectors_of(self.path)}: the ids or checksums of the vectors of "
                f"{_pictures(recovered)} were damaged. They are repaired, and nothing is lost.",
                GalleryWarning,
                stacklevel=6,
            )

    def _scan_whole_file(self) -> None:
        """Have unused bytes overwritten everywhere; the lost log said where they are."""
        if not self.read_only:
            self._connections.scan_whole()
            with self.writing() as connection:
                connection.execute("UPDATE gallery SET deletions = deletions + 1")


def _pictures(ids: Sequence[int]) -> str:
    shown = f"picture{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids[:_SHOWN]))}"
    return f"{shown} and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else shown


def _ids(rows: Iterable[tuple[int]]) -> Ids:
    return np.fromiter((id_ for (id_,) in rows), np.int64)
