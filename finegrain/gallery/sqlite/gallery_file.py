"""Reading and writing a gallery's file, and erasing deleted and expired pictures.

An expired picture leaves all results at once, and the file soon after
(:mod:`finegrain.gallery.clock`).
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery.clock import warn_of_doubt
from finegrain.gallery.sqlite.connections import Connections, log_of, patience
from finegrain.gallery.sqlite.erasure import Later, erase
from finegrain.gallery.sqlite.expiry import doubted, is_due, look
from finegrain.gallery.sqlite.schema import as_gallery_errors, identity, open_database, short
from finegrain.gallery.sqlite.selection import EXPIRED, damaged_rows, lacks_checksums
from finegrain.gallery.sqlite.statements import add_checksums, remove_expired

CHECKED_BYTES = 64 << 20
"""Largest file for which opening runs SQLite's integrity check, which takes about 0.2 s."""

ERASE_SECONDS = 5.0
"""How long a deletion waits for readers that began before it."""

_BRIEF_SECONDS = 0.2
_SHOWN = 20


class GalleryFile:
    """The file of a gallery. Every method may be called from any thread."""

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
        self.damaged: frozenset[int] = frozenset()
        """Ids of pictures whose row or vector was found to be damaged; no answer holds them."""
        try:
            self._complete_checksums()
            self._check_at_opening(lost_log=database.lost_log)
            if not self.tidy():
                self._later.begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._later.stop()
        self._connections.close()

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
            self._forget_plan()
            self._erase([])

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
                return erase(self._connections, _BRIEF_SECONDS)
            except sqlite3.OperationalError:
                return False  # the file is locked, or the disk is full

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
        new = sorted(set(ids) - self.damaged)
        if new:
            self.damaged |= set(new)
            self._warn_of_damage(new, what)

    def _warn_of_damage(self, ids: Sequence[int], what: str) -> None:
        shown = f"picture{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids[:_SHOWN]))}"
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        warnings.warn(
            f"{self.path}: {what} of {shown}{more} is damaged and left out of answers. "
            "Restore the gallery from a backup, or index the pictures again.",
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
            erased = erase(self._connections, ERASE_SECONDS)
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
                f"{self.path} is open for reading only, since the file or its folder cannot be "
                "written. Give write access to both, or copy it to where you may write."
            )
        with self._errors(), self._connections.writing() as connection:
            self._check_identity(connection)
            look(connection)
            yield connection

    @contextmanager
    def copying(self) -> Iterator[sqlite3.Connection]:
        """A new connection outside any transaction."""
        with self.reading():
            pass  # check that the file is still the one that was opened, and of the same plan
        with self._errors(), self._connections.extra() as connection:
            yield connection

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
        """Check the integrity of a file that is small or has lost its log."""
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
