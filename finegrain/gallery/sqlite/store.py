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
import warnings
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Sequence,
    Set,
)
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery.clock import warn_of_doubt
from finegrain.gallery.duplicates import Inserted, OnDuplicate, duplicates, insert_except, overtaken
from finegrain.gallery.filters.conditions import Condition
from finegrain.gallery.row import Entry, Row, meets
from finegrain.gallery.sqlite.biases import (
    write_biases,
)
from finegrain.gallery.sqlite.connections import (
    full_disk_errors,
    identity,
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
    add_checksums,
    damaged_rows,
    insert_rows,
    lacks_checksums,
    remove_expired,
    remove_rows,
    repair_derived,
    rewrite_rows,
    stored_rows,
)
from finegrain.gallery.sqlite.store_reader import StoreReader, pictures_named
from finegrain.gallery.sqlite.vector_file import StoredRows, checksums_of
from finegrain.index.exact import Vectors

CHECKED_BYTES = 8 << 20
"""Largest database for which opening runs SQLite's integrity check, which takes about 0.2 s."""

ERASE_SECONDS = 5.0
"""How long a deletion waits for readers that began before it."""

_BRIEF_SECONDS = 0.2


class _Writes(NamedTuple):
    """What this process left behind when it last wrote.

    Attributes:
        counter: The database's counter of writes, which grows with each write of any process.
        vectors: When the file of vectors was written, in nanoseconds since 1970.
    """

    counter: int
    vectors: int | None


class Store(StoreReader):
    """The database behind a gallery. Every method may be called from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None,
        dim: int | None,
        create: bool,
        vectors_per_row: int | None = None,
    ) -> None:
        super().__init__(
            path,
            fingerprint=fingerprint,
            dim=dim,
            create=create,
            vectors_per_row=vectors_per_row,
        )
        self._later = Later(self.tidy)
        self._left: _Writes | None = None
        try:
            if not self.erased():  # another process was interrupted, or is still at it
                self._connections.scan_whole()
            self._move_vectors()
            self._complete_checksums()
            self._check_at_opening(lost_log=self._lost_log)
            if not self.tidy():
                self._later.begin()
            self._compact_if_worth_it()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._later.stop()
        super().close()

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

    def delete(self, ids: Iterable[int], condition: Condition | None = None) -> int:
        """Delete rows and erase their bytes from the file; return the number of rows.

        A condition is checked in the transaction that deletes. A damaged row matches none.

        Raises:
            GalleryError: The file cannot be written. The rows may be deleted and their bytes not
                yet erased, for example if the disk is full.
        """
        with self.writing() as connection:
            # The time at which a damaged picture expires may be wrong.
            asked = list(ids)
            if condition is not None:
                rows = self.rows(asked)
                asked = [id_ for id_ in rows if meets(rows[id_], condition)]
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

        self._upkeep.replace(connection, dim, noted())

    def compact(self) -> None:
        """Write the vectors to a new file without the places of deleted pictures.

        This also repairs what can be computed again: codes, and ids and checksums of the file.
        """
        try:
            with self.writing() as connection:
                self._upkeep.verify(connection.execute)
                repair_derived(connection, self._vectors.last_id(connection.execute))
                rows = self._vectors.rows(connection.execute)
                self._upkeep.replace(connection, self.dim, rows)
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
            if self.read_only or not self._upkeep.is_mostly_deleted(run):
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
                    is_untidy = self._upkeep.is_untidy(run)
                if is_untidy:
                    with self._connections.writing() as connection:
                        self._upkeep.tidy(connection)
                return erase(self._connections, _BRIEF_SECONDS, self._upkeep.erase)
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

    def tidy_soon(self) -> None:
        """Run :meth:`tidy` in a background thread; wait for it for 0.2 s at most."""
        self._later.begin(wait=_BRIEF_SECONDS)

    def _forget(self, ids: Sequence[int]) -> None:
        """Erase data of deleted pictures that is stored outside the file."""

    def _erase(self, removed: Sequence[int]) -> None:
        """Erase deleted pictures; if readers delay it, warn and continue in the background."""
        self._forget(removed)
        with self._errors():
            erased = erase(self._connections, ERASE_SECONDS, self._upkeep.erase)
        self._note_writes()
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
            self._repair_overwritten(connection)
            look(connection)
            yield connection
            self._vectors.sync()
        self._note_writes()

    def _repair_overwritten(self, connection: sqlite3.Connection) -> None:
        """Compare the vectors with the database if another program has written to their file.

        It may hold an older moment, with vectors that were erased since.

        Raises:
            GalleryError: It is not of the same moment.
        """
        before, now = self._left, self._writes()
        if before is None or now.counter != before.counter or now == before:
            return
        comparison = self._upkeep.verify(connection.execute)
        if comparison is not None:
            self._name_damaged_vectors(comparison.missing)
            self._upkeep.repair(connection)

    def _note_writes(self) -> None:
        """Note what this process leaves behind; what was written is durable already."""
        self._left = None
        with suppress(GalleryError):
            self._left = self._writes()

    def _writes(self) -> _Writes:
        # Without a look at the plan, which a reindexing has just changed.
        with self._errors(), self._connections.reading() as connection:
            (counter,) = connection.execute("SELECT writes FROM gallery").fetchone()
            return _Writes(counter, self._vectors.last_written(connection.execute))

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
                self._upkeep.copy(run, vectors_of(path), copied)

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
            comparison = self._upkeep.verify(run)
        if comparison is None:
            return
        self._name_damaged_vectors(comparison.missing)
        if self.read_only:
            return
        with self.writing() as connection:
            recovered = self._upkeep.repair(connection)
        if recovered:
            warnings.warn(
                f"{vectors_of(self.path)}: the ids or checksums of the vectors of "
                f"{pictures_named(recovered)} were damaged. They are repaired, and nothing is "
                "lost.",
                GalleryWarning,
                stacklevel=6,
            )

    def _scan_whole_file(self) -> None:
        """Have unused bytes overwritten everywhere; the lost log said where they are."""
        if not self.read_only:
            self._connections.scan_whole()
            with self.writing() as connection:
                connection.execute("UPDATE gallery SET deletions = deletions + 1")
