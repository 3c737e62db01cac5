"""The layout of a gallery's file, and the checks before one is used."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import GalleryError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x66677261
"""Marks the file as a finegrain gallery in SQLite's header ("fgra")."""

BUSY_SECONDS = 30.0
"""How long to wait for another process that is writing."""

_SCHEMA = """
CREATE TABLE gallery (fingerprint TEXT, dim INTEGER NOT NULL);
CREATE TABLE picture (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image TEXT,
    pid INTEGER,
    camera TEXT,
    added_at TEXT NOT NULL
);
CREATE INDEX picture_pid ON picture (pid);
CREATE INDEX picture_camera ON picture (camera);
CREATE TABLE vector (
    picture INTEGER PRIMARY KEY REFERENCES picture ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE thumbnail (
    picture INTEGER PRIMARY KEY REFERENCES picture ON DELETE CASCADE,
    jpeg BLOB NOT NULL
);
CREATE TABLE attribute (
    picture INTEGER NOT NULL REFERENCES picture ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    value,
    PRIMARY KEY (picture, name)
) WITHOUT ROWID;
CREATE INDEX attribute_value ON attribute (name, kind, value, picture);
CREATE TABLE seen (name TEXT, kind TEXT, PRIMARY KEY (name, kind)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Database:
    """An open gallery file.

    Attributes:
        connection: In autocommit mode; it may be used from any thread, one at a time.
        fingerprint: Identity of the plan whose vectors are inside, or None.
        dim: Width of the vectors.
    """

    connection: sqlite3.Connection
    fingerprint: str | None
    dim: int


def open_database(
    path: Path, *, fingerprint: str | None, dim: int | None, create: bool
) -> Database:
    """Open a gallery file, or create it when ``create`` allows.

    Raises:
        GalleryError: The file is missing, damaged, of another application or format, or
            holds the vectors of another plan.
    """
    _check_path(path, create)
    if dim is not None and dim < 1:
        raise GalleryError(f"The width of a gallery's vectors is at least 1; got dim={dim}.")
    with as_gallery_errors(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            if _has_tables(connection):
                _check_format(connection, path)
            _configure(connection)
            if create:
                _create_tables(connection, path, fingerprint, dim)
            _check_format(connection, path)
            stored = _identity(connection, path)
            _check_identity(path, stored, (fingerprint, dim))
        except BaseException:
            connection.close()
            raise
    return Database(connection, *stored)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
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
def as_gallery_errors(path: Path) -> Iterator[None]:
    """Let SQLite's errors out as ours, with what to do about them."""
    try:
        yield
    except sqlite3.Error as error:
        raise GalleryError(f"{path}: {error}. {_advice(error)}") from error


def _advice(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.ProgrammingError):
        return "The gallery is closed; open it again."
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "Another process is using it for long; try again.",
        sqlite3.SQLITE_FULL: "Make space on the disk and try again.",
        sqlite3.SQLITE_READONLY: "Give write access to the file and its folder.",
        sqlite3.SQLITE_CANTOPEN: "Give read and write access to the file and its folder.",
        sqlite3.SQLITE_NOTADB: "It is not a gallery; choose another path.",
        sqlite3.SQLITE_CORRUPT: "The file is damaged; restore it from a copy.",
    }.get(code, "Check the file and its disk.")


def _check_path(path: Path, create: bool) -> None:
    if path.exists() and not path.is_file():
        raise GalleryError(f"{path} is not a file. A gallery is one file; choose another path.")
    if not path.exists() and not create:
        raise GalleryError(f"There is no gallery at {path}. Check the path or index into it first.")
    if not path.parent.is_dir():
        raise GalleryError(f"The folder {path.parent} does not exist. Make it first.")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _configure(connection: sqlite3.Connection) -> None:
    for setting in (
        "page_size = 16384",  # seven vectors of 512 numbers to a page, instead of one
        "synchronous = FULL",
        "secure_delete = ON",
        "foreign_keys = ON",
        "trusted_schema = OFF",  # a gallery may come from elsewhere
    ):
        connection.execute(f"PRAGMA {setting}")
    _use_wal(connection)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the journal, which in SQLite does not wait for others by itself."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _create_tables(
    connection: sqlite3.Connection, path: Path, fingerprint: str | None, dim: int | None
) -> None:
    with transaction(connection):
        if _has_tables(connection):  # looked at inside, as two processes may come here at once
            return
        if dim is None:
            raise GalleryError(
                f"{path} is a new gallery, so the width of its vectors is needed: give dim=."
            )
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO gallery VALUES (?, ?)", (fingerprint, dim))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryError(
            f"{path} is an SQLite database, but not a finegrain gallery. Choose another path."
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise GalleryError(
            f"{path} has gallery format {version}; this finegrain reads format {SCHEMA_VERSION}. "
            "Open it with the version that wrote it, or a newer one."
        )


def _identity(connection: sqlite3.Connection, path: Path) -> tuple[str | None, int]:
    match connection.execute("SELECT fingerprint, dim FROM gallery").fetchone():
        case (str() | None as fingerprint, int(dim)) if dim > 0:
            return fingerprint, dim
        case found:
            raise GalleryError(
                f"{path} does not state its plan and width, but {found!r:.80}. The file is "
                "damaged; restore it from a copy."
            )


def _check_identity(
    path: Path, stored: tuple[str | None, int], expected: tuple[str | None, int | None]
) -> None:
    if expected[0] not in (None, stored[0]):
        raise GalleryError(
            f"{path} was filled with plan {_short(stored[0])}, and this is plan "
            f"{_short(expected[0])}; their vectors do not compare. Open it with its own plan, or "
            "index the pictures into a new gallery."
        )
    if expected[1] not in (None, stored[1]):
        raise GalleryError(
            f"{path} holds vectors of width {stored[1]}, not {expected[1]}. Use the model that "
            "filled it, or a new gallery."
        )


def _short(fingerprint: str | None) -> str:
    return "(none)" if fingerprint is None else fingerprint[:12]
