"""Opening a gallery's file: settings, checks and migration."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finegrain import times
from finegrain.errors import GalleryError
from finegrain.gallery.filters.sql import sql_is_like
from finegrain.gallery.sqlite.connections import (
    BUSY_SECONDS,
    as_gallery_errors,
    identity,
    log_of,
    lost_its_log,
    transaction,
)
from finegrain.gallery.sqlite.files import (
    next_vectors_of,
    publish_new,
    unfinished_file,
    vectors_of,
)
from finegrain.gallery.sqlite.migrations import SCHEMA_VERSION, STEPS
from finegrain.gallery.sqlite.vector_file import is_vector_file

APPLICATION_ID = 0x66677261
"""Application id in SQLite's header ("fgra") that marks a finegrain gallery."""


ALONE_SINCE = 3
"""First format whose files leave WAL mode when they are closed."""


@dataclass(frozen=True, slots=True)
class Database:
    """An open gallery file.

    Attributes:
        connection: A connection in autocommit mode, for any thread, one at a time.
        connect: Opens another such connection.
        fingerprint: Identity of the plan whose vectors are inside, or None.
        dim: Width of all vectors of a picture together.
        vectors_per_row: Number of vectors of a picture.
        read_only: Whether the file or its folder is not writable.
        lost_log: Whether the file was copied while in use or lost its log. Pictures may be
            missing then.
    """

    connection: sqlite3.Connection
    connect: Callable[[], sqlite3.Connection]
    fingerprint: str | None
    dim: int
    vectors_per_row: int
    read_only: bool
    lost_log: bool


def open_database(
    path: Path,
    *,
    fingerprint: str | None,
    dim: int | None,
    create: bool,
    vectors_per_row: int | None = None,
) -> Database:
    """Open a gallery file, or create it if it does not exist and ``create`` is True.

    ``dim`` is the width of one vector, and ``vectors_per_row`` the number of vectors of a picture.
    A file of an older format is migrated in one transaction. The file is opened read-only if it
    or its folder is not writable.

    Raises:
        GalleryError: The file is missing, empty, damaged, of another application or format, or
            holds the vectors of another plan.
    """
    _check_path(path, create)
    if dim is not None and dim < 1:
        raise GalleryError(f"The width of a gallery's vectors is at least 1; got dim={dim}.")
    with as_gallery_errors(path):
        if not path.exists():
            _create(path, fingerprint, dim, vectors_per_row or 1)
        read_only = not _writable(path)
        has_log = log_of(path).exists()
        connect = partial(_connected, path, read_only=read_only)
        connection = connect()
        try:
            _check_format(connection, path)
            lost_log = (
                not has_log and _version(connection) >= ALONE_SINCE and lost_its_log(connection)
            )
            _migrate(connection, path, read_only)
            stored = identity(connection, path)
            (count,) = connection.execute("SELECT vectors_per_row FROM gallery").fetchone()
            if vectors_per_row not in (None, count):
                raise GalleryError(
                    f"{path} holds {count} vectors a picture, not {vectors_per_row}. Open it with "
                    f"vectors_per_row={count}, or use a new gallery."
                )
            _check_identity(path, (stored[0], stored[1] // count), (fingerprint, dim))
        except BaseException:
            connection.close()
            raise
    return Database(connection, connect, *stored, count, read_only, lost_log)


def short(fingerprint: str | None) -> str:
    """A fingerprint, shortened for messages."""
    return "(none)" if fingerprint is None else fingerprint[:12]


def _check_path(path: Path, create: bool) -> None:
    if path.exists() and not path.is_file():
        raise GalleryError(f"{path} is not a file. A gallery is one file; choose another path.")
    if not path.parent.is_dir():
        raise GalleryError(f"The folder {path.parent} does not exist. Make it first.")
    if not path.exists():
        _refuse_remains(path.resolve())
        if not create:
            raise GalleryError(
                f"There is no gallery at {path}. Check the path or index into it first."
            )
    if path.exists() and not path.stat().st_size:
        raise GalleryError(
            f"{path} is an empty file, and not a gallery; it may be a copy that failed. Restore a "
            "backup, or remove the file to begin a new gallery."
        )
    if path.exists() and os.access(path, os.R_OK) and is_vector_file(path):
        raise GalleryError(
            f"{path} holds the vectors of a gallery. Give the gallery itself, which is next to it"
            + (f": {path.with_suffix('')}" if path.suffix == ".vectors" else ".")
        )


def _refuse_remains(path: Path) -> None:
    """Check that no file of a gallery is left without its database."""
    if log_of(path).exists():
        raise GalleryError(
            f"There is no gallery at {path}, but the log of one: {log_of(path)}. Stop the "
            "processes that use it. Then move the gallery back beside its log, or remove the log."
        )
    for vectors in (vectors_of(path), next_vectors_of(path)):
        if vectors.exists():
            raise GalleryError(
                f"There is no gallery at {path}, but the vectors of one: {vectors}. They say "
                "nothing about their pictures. Move the gallery back beside them. If it is lost, "
                "remove them, and restore both files from a backup or index the pictures again."
            )


def _writable(path: Path) -> bool:
    """Whether both files of a gallery and their folder are writable.

    SQLite writes its journal to the folder.
    """
    files = [path, vectors_of(path)] if vectors_of(path).exists() else [path]
    return all(os.access(file, os.W_OK) for file in [*files, path.parent])


def _connected(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Connect to an existing file.

    SQLite creates a file for locks in the folder, even to read. If the folder is not writable and
    there is no log, nobody is writing, so the file is opened as immutable, without locks.
    """
    options = "mode=rw"
    if read_only:
        alone = not os.access(path.parent, os.W_OK) and not log_of(path).exists()
        options = "mode=ro&immutable=1" if alone else "mode=ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        for setting in (
            "synchronous = FULL",
            "secure_delete = ON",
            "foreign_keys = ON",
            "temp_store = MEMORY",  # write no data of a gallery to the system's temporary folder
            "trusted_schema = OFF",  # a gallery may come from an untrusted source
            "wal_autocheckpoint = 0",  # see finegrain.gallery.sqlite.connections
        ):
            connection.execute(f"PRAGMA {setting}")
        connection.create_function("utc_now", 0, lambda: times.utc_text(times.now()))
        connection.create_function("is_like", 2, sql_is_like, deterministic=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, fingerprint: str | None, dim: int | None, vectors_per_row: int) -> None:
    """Create a new gallery; it appears under its name only once it is complete."""
    if dim is None:
        raise GalleryError(
            f"{path} is a new gallery, so the width of its vectors is needed: give dim=."
        )
    target = path.resolve()
    with unfinished_file(target) as unfinished:
        with closing(_connected(unfinished, read_only=False)) as connection:
            # A page then holds seven vectors of width 512 instead of one.
            connection.execute("PRAGMA page_size = 16384")
            with transaction(connection):
                for step in STEPS:
                    step(connection)
                connection.execute(
                    "INSERT INTO gallery (fingerprint, dim, vectors_per_row, clock) "
                    "VALUES (?, ?, ?, ?)",
                    (
                        fingerprint,
                        dim * vectors_per_row,
                        vectors_per_row,
                        times.utc_text(times.now()),
                    ),
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        publish_new(unfinished, target)  # does nothing if another process was faster


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryError(
            f"{path} is an SQLite database, but not a finegrain gallery. Choose another path."
        )
    version = _version(connection)
    if not 1 <= version <= SCHEMA_VERSION:
        raise GalleryError(
            f"{path} has gallery format {version}; this finegrain reads formats up to "
            f"{SCHEMA_VERSION}. Open it with the version that wrote it, or a newer one."
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection, path: Path, read_only: bool) -> None:
    """Run the missing migration steps, all or none."""
    if _version(connection) == SCHEMA_VERSION:
        return
    if read_only:
        raise GalleryError(
            f"{path} has gallery format {_version(connection)} and must be brought to format "
            f"{SCHEMA_VERSION}, but cannot be written. Open it once where it can be, or a copy."
        )
    with transaction(connection):
        # Read the version again inside the transaction; another process may have migrated.
        for step in STEPS[_version(connection) :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_identity(
    path: Path, stored: tuple[str | None, int], expected: tuple[str | None, int | None]
) -> None:
    if expected[0] not in (None, stored[0]):
        raise GalleryError(
            f"{path} was filled with plan {short(stored[0])}, and this is plan "
            f"{short(expected[0])}; their vectors do not compare. Open it with its own plan, or "
            "encode its pictures again: finegrain index PLAN PICTURES --reindex"
        )
    if expected[1] not in (None, stored[1]):
        raise GalleryError(
            f"{path} holds vectors of width {stored[1]}, not {expected[1]}. Use the model that "
            "filled it, or a new gallery."
        )
