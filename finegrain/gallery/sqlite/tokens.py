"""The tokens that a match head needs of each picture, in a file next to a gallery.

Tokens are computed from the pictures, so the file is only a cache: missing tokens are computed
again. It is a database because tokens are personal data: SQLite overwrites a deleted record in
place, and a writer that is killed leaves no partial record.

A record of a ViT-B/16 at 384x128 (193 tokens of 512 bytes) takes 100 kB, one of RaSa's
384x384 (577 of 768) takes 445 kB. Records are read through a memory map, with the largest pages
that SQLite supports. Reading 64 random records of RaSa takes about 3 ms from the page cache, as
fast as from a memory-mapped array.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.connections import (
    BUSY_SECONDS,
    as_gallery_errors,
    enter_file,
    file_id,
    leave_file,
    opened_file,
    transaction,
)
from finegrain.gallery.sqlite.files import OWNER_ONLY
from finegrain.gallery.sqlite.rows import AMONG
from finegrain.gallery.sqlite.unused_bytes import overwrite_unused
from finegrain.records import PictureTokens
from finegrain.runtime.forks import pause_at_fork

APPLICATION_ID = 0x6667746B
"""Application id in SQLite's header ("fgtk")."""

FORMAT_VERSION = 1
_MAPPED_BYTES = 1 << 40
_PAGE_BYTES = 65536


class TokenFile:
    """A file of tokens by the ids of pictures in a gallery.

    Each record also states when its picture was added, because a new gallery assigns the same ids
    again, and tokens of an old gallery must not be used for a new one.

    Every method may be called from any thread, and several processes may share the file. If
    another process empties it for another plan, this object can no longer read or write it.

    Args:
        path: Path of the file. A file that is damaged or holds tokens of another plan is emptied;
            a file of another application raises an error.
        fingerprint: Identity of the plan that makes the tokens.
        tokens, width: Shape of a picture's tokens.

    Raises:
        GalleryError: The file belongs to another application, or cannot be written.
    """

    def __init__(self, path: Path, *, fingerprint: str, tokens: int, width: int) -> None:
        self.path = path
        self.tokens = tokens
        self.width = width
        self._lock = threading.RLock()
        self._made_for = json.dumps([FORMAT_VERSION, fingerprint, tokens, width])
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        with as_gallery_errors(path):
            self._connection = _opened(path, self._made_for)
        pause_at_fork(self)

    @property
    def record_bytes(self) -> int:
        """Size of one picture's tokens in bytes."""
        return self.tokens * (self.width + np.dtype(np.float32).itemsize)

    def __len__(self) -> int:
        return len(self.ids())

    def ids(self) -> dict[int, str]:
        """Ids of the pictures with tokens, and when each picture was added."""
        with self._running() as connection:
            return dict(connection.execute("SELECT id, added_at FROM record"))

    def add(self, pictures: Mapping[int, str], tokens: PictureTokens) -> None:
        """Store tokens; existing tokens of an id are replaced.

        Args:
            pictures: ``N`` ids, and when each picture was added.
            tokens: Tokens, int8 ``[N, T, W]``.
        """
        records = [
            (id_, at, tokens.scales[row].astype("<f4").tobytes() + tokens.codes[row].tobytes())
            for row, (id_, at) in enumerate(pictures.items())
        ]
        with self._running() as connection, transaction(connection):
            self._check_own(connection)
            connection.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", records)

    def read(self, pictures: Mapping[int, str]) -> tuple[list[int], PictureTokens]:
        """Ids of the pictures that have tokens, in the order of ``pictures``, and their tokens."""
        with self._running() as connection:
            self._check_own(connection)
            stored: dict[tuple[int, str], bytes] = {
                (id_, added_at): data
                for id_, added_at, data in connection.execute(
                    f"SELECT id, added_at, data FROM record WHERE id {AMONG}",
                    (json.dumps(list(pictures)),),
                )
            }
        records = {id_: stored.get((id_, added_at), b"") for id_, added_at in pictures.items()}
        ids = [id_ for id_, record in records.items() if len(record) == self.record_bytes]
        codes = np.empty((len(ids), self.tokens, self.width), np.int8)
        scales = np.empty((len(ids), self.tokens), np.float32)
        for row, id_ in enumerate(ids):
            scales[row] = np.frombuffer(records[id_], "<f4", self.tokens)
            codes[row] = np.frombuffer(records[id_], np.int8, offset=scales[row].nbytes).reshape(
                self.tokens, self.width
            )
        return ids, PictureTokens(codes=codes, scales=scales)

    def forget(self, ids: Iterable[int]) -> None:
        """Delete and overwrite the tokens of these pictures."""
        with self._lock:
            forget_tokens(self.path, ids)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._disconnect()

    def before_fork(self) -> None:
        self._lock.acquire()
        self._disconnect()

    def after_fork(self) -> None:
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _running(self) -> Iterator[sqlite3.Connection]:
        with self._lock, as_gallery_errors(self.path):
            if self._closed:
                raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
            if self._connection is None:
                self._connection = _opened(self.path, self._made_for)
            yield self._connection

    def _check_own(self, connection: sqlite3.Connection) -> None:
        stored = connection.execute("SELECT plan FROM made_for").fetchone()
        if stored != (self._made_for,):
            raise GalleryError(
                f"{self.path} holds tokens of another plan since it was opened. Open the searcher "
                "again with that plan."
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def forget_tokens(path: Path, ids: Iterable[int]) -> None:
    """Delete and overwrite the tokens of these pictures, if the file exists.

    Raises:
        GalleryError: The file cannot be written, and still holds the tokens.
    """
    id_list = json.dumps(list(ids))
    _forget(path, lambda run: run(f"DELETE FROM record WHERE id {AMONG}", (id_list,)))


def keep_tokens(path: Path, ids: Iterable[int]) -> None:
    """Delete and overwrite the tokens of all other pictures, if the file exists.

    Raises:
        GalleryError: The file cannot be written, and still holds the tokens.
    """
    id_list = json.dumps(list(ids))
    _forget(path, lambda run: run(f"DELETE FROM record WHERE id NOT {AMONG}", (id_list,)))


def _forget(path: Path, delete: Callable[[Callable[..., sqlite3.Cursor]], sqlite3.Cursor]) -> None:
    """Delete records, and overwrite copies of them in unused bytes of pages."""
    if not path.exists():
        return
    with as_gallery_errors(path), closing(_connected(path)) as connection:
        if _application(connection) != APPLICATION_ID:
            return
        with transaction(connection):
            deleted = delete(connection.execute).rowcount
        if not deleted:
            return
    file = file_id(path)
    enter_file(file)
    try:
        # A new connection writes, so that all others notice a change and drop their cached pages.
        with as_gallery_errors(path), closing(_connected(path)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
            overwrite_unused(opened_file(path, file), page_size, num_pages)
            connection.execute("UPDATE made_for SET plan = plan")
            connection.execute("COMMIT")
    finally:
        leave_file(file)


def _opened(path: Path, made_for: str) -> sqlite3.Connection:
    """Open the file; empty it if it is damaged or of another plan."""
    try:
        return _prepared(path, made_for)
    except sqlite3.OperationalError:
        raise  # not accessible now, which is not a sign of damage
    except sqlite3.DatabaseError:
        path.unlink()  # damaged, or not a database
        return _prepared(path, made_for)


def _prepared(path: Path, made_for: str) -> sqlite3.Connection:
    connection = _connected(path)
    try:
        if _application(connection) not in (0, APPLICATION_ID):
            raise GalleryError(
                f"expected the tokens of a gallery at {path}, got a database of another "
                "application. Move it away."
            )
        _begin(connection, made_for)
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    if not path.exists() and path.parent.is_dir():
        with suppress(FileExistsError):
            path.touch(OWNER_ONLY, exist_ok=False)
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        # Overwrite deleted records with zeros, in the file and in the journal.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _application(connection: sqlite3.Connection) -> int:
    """The application id; 0 for a new file, -1 for another database without an id."""
    number = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return number if number or not tables else -1


def _begin(connection: sqlite3.Connection, made_for: str) -> None:
    with transaction(connection):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("CREATE TABLE IF NOT EXISTS made_for (plan TEXT NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS record "
            "(id INTEGER PRIMARY KEY, added_at TEXT NOT NULL, data BLOB NOT NULL)"
        )
        if connection.execute("SELECT plan FROM made_for").fetchone() != (made_for,):
            connection.execute("DELETE FROM record")
            connection.execute("DELETE FROM made_for")
            connection.execute("INSERT INTO made_for VALUES (?)", (made_for,))
