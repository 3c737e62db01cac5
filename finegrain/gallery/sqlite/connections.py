"""The connections to a gallery's file: one that writes, and some that read.

Readers never wait for a writer: SQLite's write-ahead log (WAL) gives each a snapshot. The file is
in that mode from the first write until the last process closes it. In between, a copy of the file
alone may lack what is still in the log; that the header says WAL and there is no log tells such a
copy from a file that was closed (:func:`lost_its_log`).

Checkpoints copy the log into the file. They run after each write and while the write lock is held,
never by SQLite's own choice: before SQLite 3.51.3 a checkpoint beside a commit may damage the file
(https://www.sqlite.org/wal.html#walresetbug), and a plain copy should lack nothing.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite import raw_file
from finegrain.runtime.forks import pause_at_fork

_LEAVE_ATTEMPTS = 3
_CHECKPOINT_SECONDS = 0.05

Connect = Callable[[], sqlite3.Connection]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commit what happens inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def patience(connection: sqlite3.Connection, seconds: float) -> Generator[None]:
    """Have a connection wait for locks no longer than this."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {before}")


class _Open:
    """All open connections of one :class:`Connections`, also closed when that is forgotten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = os.getpid()
        self.connections: set[sqlite3.Connection] = set()
        self.file: raw_file.FileId | None = None

    def close(self) -> None:
        if self.process != os.getpid():
            return  # they are the parent's
        for connection in self.connections:
            with suppress(sqlite3.Error):
                connection.close()
        self.connections.clear()
        if self.file is not None:
            raw_file.leave(self.file)
            self.file = None


class Connections:
    """Opens connections as they are needed; every method may be called from any thread.

    Args:
        path: The file.
        connect: Opens and configures one more connection.
        read_only: The file cannot be written.
    """

    def __init__(self, path: Path, connect: Connect, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.lock = threading.RLock()
        """Held while this process writes."""
        self._connect = connect
        self._file = raw_file.file_id(path)
        self._gate = threading.Condition()
        self._num_reading = 0
        self._forking = False
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._current = threading.local()
        self._open = _Open(path)
        self._leave = weakref.finalize(self, _leave, self._open, connect, read_only=read_only)
        pause_at_fork(self)

    def adopt(self, connection: sqlite3.Connection) -> Self:
        """Take over a connection that is open already."""
        self._enter()
        self._open.connections.add(connection)
        self._idle.append(connection)
        return self

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection that sees the file as it is now, until the end of the block.

        Inside of :meth:`writing` it is the one that writes.
        """
        if (current := self._in_use()) is not None:
            yield current
            return
        connection = self._borrow()
        self._current.connection = connection
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            self._current.connection = None
            self._give_back(connection)

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """The connection that writes, in a transaction that is durable afterwards, or undone."""
        with self.lock:
            before = self._in_use()
            writer = self.writer()
            self._current.connection = writer
            try:
                self.use_wal()
                with transaction(writer):
                    yield writer
            finally:
                self._current.connection = before
            self.checkpoint()

    def in_transaction(self) -> bool:
        """Whether this thread is inside of :meth:`reading` or :meth:`writing`."""
        return self._in_use() is not None

    def writer(self) -> sqlite3.Connection:
        """The connection that writes; for who holds :attr:`lock`."""
        self._check_open()
        if self._writer is None:
            self._writer = self._opened()
        return self._writer

    @contextmanager
    def extra(self) -> Generator[sqlite3.Connection]:
        """A connection of its own, closed afterwards; for who holds :attr:`lock`."""
        connection = self._opened()
        try:
            yield connection
        finally:
            self._open.connections.discard(connection)
            connection.close()

    def use_wal(self) -> None:
        """Switch the journal, which in SQLite does not wait for others by itself."""
        writer = self.writer()
        (patient,) = writer.execute("PRAGMA busy_timeout").fetchone()
        deadline = time.monotonic() + patient / 1000
        while writer.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                writer.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def checkpoint(self) -> None:
        """Copy the log into the file as far as readers allow, unless another process writes."""
        with self.lock, suppress(sqlite3.OperationalError):
            writer = self.writer()
            with patience(writer, _CHECKPOINT_SECONDS), transaction(writer):
                # By another connection, since this one is inside of a transaction.
                other = self._borrow()
                try:
                    other.execute("PRAGMA user_version").fetchone()  # sees that there is a log
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                finally:
                    self._give_back(other)

    def truncate_log(self, seconds: float) -> bool:
        """Copy the log into the file and empty it; False where readers stay longer than this."""
        with self.lock:
            writer = self.writer()
            with patience(writer, seconds):
                (busy, *_) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def log_bytes(self) -> int:
        """Size of the log."""
        with suppress(FileNotFoundError):
            return os.stat(log_of(self.path)).st_size
        return 0

    def file_id(self) -> raw_file.FileId:
        """The file that is open."""
        return self._file

    def close(self) -> None:
        """Close all connections; the last one on a file leaves it without a log."""
        with self.lock, self._gate:
            self._closed = True
            self._idle.clear()
            self._writer = None
            self._leave()

    def before_fork(self) -> None:
        self.lock.acquire()
        self._gate.acquire()
        self._forking = True
        own = 1 if self._in_use() not in (None, self._writer) else 0
        while self._num_reading > own:
            self._gate.wait()
        self._idle.clear()
        self._writer = None
        if not own:
            self._open.close()

    def after_fork(self) -> None:
        self._open.process = os.getpid()
        self._forking = False
        self._gate.notify_all()
        self._gate.release()
        self.lock.release()

    def _in_use(self) -> sqlite3.Connection | None:
        return getattr(self._current, "connection", None)

    def _borrow(self) -> sqlite3.Connection:
        with self._gate:
            while self._forking:
                self._gate.wait()
            self._check_open()
            connection = self._idle.pop() if self._idle else self._opened()
            self._num_reading += 1
            return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._gate:
            self._num_reading -= 1
            self._gate.notify_all()
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error:  # it was closed meanwhile, or the disk failed
                self._open.connections.discard(connection)
                connection.close()
            else:
                self._idle.append(connection)

    def _opened(self) -> sqlite3.Connection:
        self._enter()
        connection = self._connect()
        self._open.connections.add(connection)
        return connection

    def _enter(self) -> None:
        if self._open.file is None:
            raw_file.enter(self._file)
            self._open.file = self._file

    def _check_open(self) -> None:
        if self._closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        try:
            same = raw_file.file_id(self.path) == self._file
        except OSError:
            same = False
        if not same:
            raise GalleryError(
                f"{self.path} was removed, or replaced by another file, since it was opened. What "
                "would be added now would be lost. Open it again."
            )


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of a file."""
    return path.with_name(f"{path.name}-wal")


def lost_its_log(connection: sqlite3.Connection) -> bool:
    """Whether a file without a log was in use when it was copied, or lost its log.

    Args:
        connection: Freshly opened, where there was no log.
    """
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        return False
    try:
        with patience(connection, 0):
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        return not _is_busy(error)  # else somebody has just begun to use it
    return True


def _leave(opened: _Open, connect: Connect, *, read_only: bool) -> None:
    """Close connections, and have the file stand alone when nobody uses it any more."""
    used = bool(opened.connections)
    opened.close()
    if read_only or not used or opened.process != os.getpid():
        return
    for _ in range(_LEAVE_ATTEMPTS):
        with suppress(sqlite3.Error, OSError, GalleryError):
            if not opened.path.is_file():
                return
            connection = connect()
            try:
                with patience(connection, 0):
                    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                        connection.execute("PRAGMA journal_mode = DELETE")
                return
            finally:
                connection.close()
        if log_of(opened.path).exists():
            return  # somebody else is there, and leaves later
        time.sleep(random.uniform(0, 0.02))  # two that leave at once are in each other's way


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
