"""The connections to a gallery's file: one writer and several readers.

Readers never wait for a writer, because SQLite's write-ahead log (WAL) gives each of them a
snapshot. The file is in WAL mode from the first write until the last process closes it. A plain
copy of the file made in between may lack what is still in the log. The header of such a copy
states WAL mode although there is no log (:func:`lost_its_log`).

Checkpoints copy the log into the file. They run after each write, while the write lock is held.
SQLite's automatic checkpoints are off: before SQLite 3.51.3 a checkpoint during a commit may damage
the file (https://www.sqlite.org/wal.html#walresetbug). With a checkpoint after each write, a plain
copy of the file is usually complete.

A page that SQLite writes may hold old copies of rows in its unused bytes. After each checkpoint,
these bytes are therefore overwritten in all pages that the log holds
(:mod:`~finegrain.gallery.sqlite.unused_bytes`). The log names the pages of a write until SQLite
begins the log again, which it does only inside a later write. So each write first does the same
for the log that it meets, in case the process that wrote it was killed.

The bytes of a file are also overwritten directly (:func:`opened_file`). On POSIX systems, closing
any descriptor of a file drops all locks of the process on that file, including those of SQLite. A
file is therefore opened once per process, and stays open until no gallery in the process uses it.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.unused_bytes import LogPages, overwrite_unused
from finegrain.runtime.forks import pause_at_fork

BUSY_SECONDS = 30.0
"""How long to wait for another process that writes."""

_WRITER_CACHE_KIB = 32 << 10
"""Pages that the writer keeps in memory. A batch of new rows changes pages all over the indexes;
with SQLite's 2 MiB, most of them would be read and written several times."""

_LEAVE_ATTEMPTS = 3
_CHECKPOINT_SECONDS = 0.05

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

Connect = Callable[[], sqlite3.Connection]

FileId = tuple[int, int]
"""Device and inode number of a file; they do not change when it is renamed."""

_FILES = threading.RLock()
_USERS: dict[FileId, int] = {}
_OPENED: dict[FileId, BinaryIO] = {}


class Truncated(NamedTuple):
    """A log that was copied into the file and emptied.

    Attributes:
        num_writes: The file's counter of writes at that time.
        pages: Pages that the log held; None if an earlier log was lost, so that they are unknown.
    """

    num_writes: int
    pages: Collection[int] | None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commit all statements of the block, or none."""
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
    """Limit how long a connection waits for locks."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {before}")


@contextmanager
def limited(connection: sqlite3.Connection, num_steps: int) -> Generator[None]:
    """Interrupt each statement after about so many steps of SQLite's virtual machine."""
    connection.set_progress_handler(lambda: True, num_steps)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


class _Open:
    """The open connections of a :class:`Connections`; closed when that is garbage-collected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = os.getpid()
        self.connections: set[sqlite3.Connection] = set()
        self.file: FileId | None = None
        self.log = LogPages(log_of(path))

    def settle_log(self, connection: sqlite3.Connection) -> None:
        """Copy the log into the file, and overwrite the unused bytes of the pages in it.

        If readers prevent the copy, the log stays, and a later call continues.

        Args:
            connection: A connection outside any transaction, while another one of this process is
                in a write transaction that has written nothing yet.
        """
        connection.execute("PRAGMA user_version").fetchone()  # makes it notice the log
        _, num_frames, num_copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if num_frames == num_copied and (pages := self.log.new()):
            self.overwrite_unused(connection, pages)
            self.log.settled()

    def overwrite_unused(
        self, connection: sqlite3.Connection, pages: Collection[int] | None
    ) -> None:
        """Overwrite the unused bytes of pages, or of all pages (None)."""
        if self.file is None:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
        overwrite_unused(opened_file(self.path, self.file), page_size, num_pages, pages)

    def close(self) -> None:
        if self.process != os.getpid():
            return  # they belong to the parent process
        for connection in self.connections:
            with suppress(sqlite3.Error):
                connection.close()
        self.connections.clear()
        if self.file is not None:
            leave_file(self.file)
            self.file = None


class Connections:
    """Opens connections on demand. Every method may be called from any thread.

    Args:
        path: Path of the file.
        connect: Opens and configures a connection.
        read_only: Whether the file is not writable.
    """

    def __init__(self, path: Path, connect: Connect, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.lock = threading.RLock()
        """Held while this process writes."""
        self._connect = connect
        self._file = file_id(path)
        self._gate = threading.Condition()
        self._num_reading = 0
        self._forking = False
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._current = threading.local()
        self._open = _Open(path)
        self._scan_whole = False
        self._leave = weakref.finalize(self, _leave, self._open, connect, read_only=read_only)
        pause_at_fork(self)

    def adopt(self, connection: sqlite3.Connection) -> Self:
        """Take over an open connection."""
        self._enter()
        self._open.connections.add(connection)
        self._idle.append(connection)
        return self

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection that sees one snapshot of the file until the end of the block.

        Inside :meth:`writing` it is the writing connection.
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
        """The writing connection, in a transaction that is durable after the block, or undone."""
        with self.lock:
            before = self._in_use()
            writer = self.writer()
            self._current.connection = writer
            try:
                self.use_wal()
                with transaction(writer):
                    self._settle_log()
                    before_changes = writer.total_changes
                    yield writer
                    if writer.total_changes != before_changes:
                        writer.execute("UPDATE gallery SET writes = writes + 1")
            finally:
                self._current.connection = before
            self.checkpoint()

    def in_transaction(self) -> bool:
        """Whether this thread is inside :meth:`reading` or :meth:`writing`."""
        return self._in_use() is not None

    def writer(self) -> sqlite3.Connection:
        """The writing connection. The caller holds :attr:`lock`."""
        self._check_open()
        if self._writer is None:
            self._writer = self._opened()
            self._writer.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        return self._writer

    @contextmanager
    def extra(self) -> Generator[sqlite3.Connection]:
        """A new connection, closed after the block. The caller holds :attr:`lock`."""
        connection = self._opened()
        try:
            yield connection
        finally:
            self._open.connections.discard(connection)
            connection.close()

    def use_wal(self) -> None:
        """Switch the file to WAL mode; retry while it is busy, since SQLite does not wait here."""
        writer = self.writer()
        (milliseconds,) = writer.execute("PRAGMA busy_timeout").fetchone()
        deadline = time.monotonic() + milliseconds / 1000
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
                self._settle_log()

    def truncate_log(self, seconds: float) -> Truncated | None:
        """Copy the log into the file and empty it.

        Returns:
            The pages that it held, for :meth:`overwrite_unused`; None if readers prevent it for
            this long.
        """
        with self.lock:
            writer = self.writer()
            with patience(writer, seconds):
                with transaction(writer):
                    truncated = Truncated(_num_writes(writer), self._open.log.new())
                    if self._scan_whole:
                        truncated = truncated._replace(pages=None)
                self._scan_whole = True  # until the pages that the log named are overwritten
                (busy, *_) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                self._scan_whole = truncated.pages is None
                return None
            return truncated

    def overwrite_unused(self, truncated: Truncated) -> None:
        """Overwrite the unused bytes of the pages of a truncated log, inside :meth:`writing`.

        If another process has written before the log was truncated, all pages are overwritten.
        """
        is_complete = _num_writes(self.writer()) == truncated.num_writes
        self._open.overwrite_unused(self.writer(), truncated.pages if is_complete else None)
        self._scan_whole = False

    def scan_whole(self) -> None:
        """Overwrite unused bytes in all pages the next time, because a log was lost."""
        self._scan_whole = True

    def _settle_log(self) -> None:
        other = self._borrow()
        try:
            self._open.settle_log(other)
        finally:
            self._give_back(other)

    def file_id(self) -> FileId:
        """Identity of the open file."""
        return self._file

    def close(self) -> None:
        """Close all connections. The last process to close a file removes its log."""
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
            except sqlite3.Error:  # closed meanwhile, or a disk error
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
            enter_file(self._file)
            self._open.file = self._file

    def _check_open(self) -> None:
        if self._closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        try:
            same = file_id(self.path) == self._file
        except OSError:
            same = False
        if not same:
            raise GalleryError(
                f"{self.path} was removed, or replaced by another file, since it was opened. What "
                "would be added now would be lost. Open it again."
            )


def log_of(path: Path) -> Path:
    """Path of SQLite's log of a file."""
    return path.with_name(f"{path.name}-wal")


def lost_its_log(connection: sqlite3.Connection) -> bool:
    """Whether a file without a log was copied while in use, or lost its log.

    Args:
        connection: A new connection to a file that had no log when it was opened.
    """
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        return False
    try:
        with patience(connection, 0):
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        return not _is_busy(error)  # busy: another process has just opened it
    return True


def _leave(opened: _Open, connect: Connect, *, read_only: bool) -> None:
    """Close connections. If no process uses the file any more, leave WAL mode."""
    used = bool(opened.connections)
    leaves = used and not read_only and opened.process == os.getpid()
    if leaves:
        with suppress(sqlite3.Error, OSError, GalleryError):
            _settle_before_leaving(opened, connect)
    opened.close()
    if not leaves:
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
            return  # another process uses it, and removes the log later
        time.sleep(random.uniform(0, 0.02))  # two processes that close at once block each other


def _settle_before_leaving(opened: _Open, connect: Connect) -> None:
    """Settle the log; SQLite removes it when the last process closes the file."""
    if opened.log.new():
        with (
            closing(connect()) as writer,
            closing(connect()) as other,
            patience(writer, 0),
            transaction(writer),
        ):
            opened.settle_log(other)


def _num_writes(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT writes FROM gallery").fetchone()[0])


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def file_id(path: Path) -> FileId:
    """Identity of the file that is at a path now.

    Raises:
        OSError: The file does not exist.
    """
    about = os.stat(path)
    return about.st_dev, about.st_ino


def enter_file(file: FileId) -> None:
    """Register a user of a file in this process."""
    with _FILES:
        _USERS[file] = _USERS.get(file, 0) + 1


def leave_file(file: FileId) -> None:
    """Unregister a user, after all its connections to the file are closed."""
    with _FILES:
        _USERS[file] -= 1
        if not _USERS[file]:
            del _USERS[file]
            if (opened := _OPENED.pop(file, None)) is not None:
                opened.close()


def opened_file(path: Path, file: FileId) -> BinaryIO:
    """The file, unbuffered, for reading and writing; valid until :func:`leave_file`.

    Raises:
        OSError: It cannot be opened, or another file is at the path.
    """
    with _FILES:
        if file not in _OPENED:
            if file_id(path) != file:
                raise FileNotFoundError(f"{path} is another file now")
            _OPENED[file] = path.open("r+b", buffering=0)
        return _OPENED[file]


@contextmanager
def as_gallery_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into :class:`GalleryError` with advice."""
    try:
        yield
    except sqlite3.Error as error:
        raise GalleryError(f"{path}: {error}. {_advice(error)}") from error
    except OSError as error:
        raise GalleryError(
            f"{path}: {error}. Nothing stored is lost; check the file and its folder, and that the "
            "disk works and has space."
        ) from error


@contextmanager
def full_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors about a full disk into :class:`GalleryError` that names the folder of a copy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise
        raise _full(folder) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(folder) from error


def _full(folder: Path) -> GalleryError:
    return GalleryError(
        f"The disk of {folder} is full, or a limit on the size of files is reached. Nothing was "
        "copied; make space and try again."
    )


def identity(connection: sqlite3.Connection, path: Path) -> tuple[str | None, int]:
    """Fingerprint and width of the vectors in the file.

    Raises:
        GalleryError: The file does not state them.
    """
    match connection.execute("SELECT fingerprint, dim FROM gallery").fetchone():
        case (str() | None as fingerprint, int(dim)) if dim > 0:
            return fingerprint, dim
        case row:
            raise GalleryError(
                f"{path} does not state its plan and width, but {row!r:.80}. The file is "
                "damaged; restore it from a backup."
            )


def _advice(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.ProgrammingError):
        return "The gallery is closed; open it again."
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: (
            f"Another process has been writing to it for {BUSY_SECONDS:g} s; let it finish or "
            "stop it, and try again."
        ),
        sqlite3.SQLITE_FULL: "Nothing stored is lost; make space on the disk and try again.",
        sqlite3.SQLITE_IOERR: (
            "Nothing stored is lost by this. Check that the disk works and has space, and that "
            "no limit on the size of files is reached (ulimit -f), and try again."
        ),
        sqlite3.SQLITE_READONLY: "Give write access to the file and its folder.",
        sqlite3.SQLITE_CANTOPEN: "Give read and write access to the file and its folder.",
        sqlite3.SQLITE_NOTADB: "It is not a gallery; choose another path.",
        sqlite3.SQLITE_CORRUPT: "The file is damaged; restore it from a backup.",
    }.get(code, "Check the file and its disk.")
