"""The steps that bring a gallery's file to the present layout.

A new file takes all steps and an older file the missing ones, so that both end up the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from finegrain.times import utc_text

Step = Callable[[sqlite3.Connection], None]

FIRST_SCHEMA = """
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

_TIMES_SCHEMA = """
ALTER TABLE picture ADD COLUMN time TEXT;
ALTER TABLE picture ADD COLUMN track TEXT;
ALTER TABLE picture ADD COLUMN expires_at TEXT;
UPDATE picture SET added_at = substr(added_at, 1, 19) || '.000Z';
CREATE INDEX picture_image ON picture (image);
CREATE INDEX picture_time ON picture (time);
CREATE INDEX picture_track ON picture (track);
CREATE INDEX picture_expires_at ON picture (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE gallery ADD COLUMN deletions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gallery ADD COLUMN scrubbed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE reindexing (fingerprint TEXT, dim INTEGER NOT NULL);
CREATE TABLE next_vector (
    picture INTEGER PRIMARY KEY REFERENCES picture ON DELETE CASCADE,
    data BLOB NOT NULL
);
"""

# The checksum (CRC-32) is null for a vector that an older version wrote. `clock` is the last
# trusted time; `doubted` is a later time that was read once and is not trusted yet.
_CHECKS_SCHEMA = """
ALTER TABLE vector ADD COLUMN checksum INTEGER;
ALTER TABLE next_vector ADD COLUMN checksum INTEGER;
ALTER TABLE gallery ADD COLUMN clock TEXT;
ALTER TABLE gallery ADD COLUMN doubted TEXT;
"""

_FOLLOWING_SCHEMA = """
DROP INDEX picture_pid;
ALTER TABLE picture RENAME COLUMN pid TO numbered_pid;
ALTER TABLE picture ADD COLUMN pid;
UPDATE picture SET pid = numbered_pid WHERE numbered_pid IS NOT NULL;
ALTER TABLE picture DROP COLUMN numbered_pid;
CREATE INDEX picture_pid ON picture (pid);
ALTER TABLE picture ADD COLUMN source TEXT;
ALTER TABLE picture ADD COLUMN size INTEGER;
ALTER TABLE picture ADD COLUMN mtime INTEGER;
ALTER TABLE picture ADD COLUMN digest TEXT;
CREATE INDEX picture_source ON picture (source) WHERE source IS NOT NULL;
CREATE INDEX picture_digest ON picture (digest) WHERE digest IS NOT NULL;
ALTER TABLE gallery ADD COLUMN numbered_until INTEGER NOT NULL DEFAULT 0;
UPDATE gallery SET numbered_until = (SELECT coalesce(max(id), 0) FROM picture);
"""
"""A pid is a number or a text, so its column has no type; a type would turn "007" into 7.

Up to the id ``numbered_until``, pids may be numbers that an older reader of catalogues assigned.
"""

# Rows that an older version wrote get their checksums after the migration, in batches
# (finegrain.gallery.sqlite.rows); -1 marks those that lack one.
_ROW_CHECKSUMS_SCHEMA = """
ALTER TABLE picture ADD COLUMN thumbnail_checksum INTEGER;
ALTER TABLE picture ADD COLUMN checksum INTEGER NOT NULL DEFAULT -1;
CREATE INDEX picture_without_checksum ON picture (id) WHERE checksum = -1;
"""

# Unused bytes of an older version's pages may hold deleted rows. The counter has them overwritten.
_WRITES_SCHEMA = """
ALTER TABLE gallery ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;
UPDATE gallery SET deletions = deletions + 1;
"""

# A change of stored columns has the next number; a picture states the number of its last change.
_REVISIONS_SCHEMA = """
ALTER TABLE gallery ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE picture ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX picture_revision ON picture (revision) WHERE revision > 0;
"""

# The vectors of an older version stay in their table until they are moved to a file, in batches
# (finegrain.gallery.sqlite.moving). A new gallery does not need the table.
_VECTOR_FILE_SCHEMA = """
ALTER TABLE picture ADD COLUMN vector_checksum INTEGER;
CREATE TABLE vector_file (
    identity TEXT, num_slots INTEGER NOT NULL, total INTEGER NOT NULL
);
INSERT INTO vector_file VALUES (NULL, 0, 0);
CREATE TABLE erasing (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL);
"""

_BIASES_SCHEMA = """
CREATE TABLE bias (
    picture INTEGER PRIMARY KEY REFERENCES picture ON DELETE CASCADE,
    value REAL NOT NULL,
    checksum INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
CREATE INDEX bias_revision ON bias (revision);
ALTER TABLE gallery ADD COLUMN bias_revision INTEGER NOT NULL DEFAULT 0;
"""

_SEVERAL_VECTORS_SCHEMA = """
ALTER TABLE gallery ADD COLUMN vectors_per_row INTEGER NOT NULL DEFAULT 1;
"""
"""``dim`` is the width of all vectors of a picture together."""

_ERASING_TRIGGER = """
CREATE TRIGGER picture_erasing AFTER DELETE ON picture WHEN old.vector_checksum IS NOT NULL
BEGIN
    INSERT INTO erasing VALUES (old.id, old.vector_checksum);
END
"""


def _first(connection: sqlite3.Connection) -> None:
    run_all(connection, FIRST_SCHEMA)


def _times_tracks_and_retention(connection: sqlite3.Connection) -> None:
    run_all(connection, _TIMES_SCHEMA)
    for name in ("time", "track", "expires_at"):
        _make_way_for(connection, name)


def _checksums_and_clock(connection: sqlite3.Connection) -> None:
    run_all(connection, _CHECKS_SCHEMA)


def _own_pids_and_sources(connection: sqlite3.Connection) -> None:
    run_all(connection, _FOLLOWING_SCHEMA)


def _row_checksums(connection: sqlite3.Connection) -> None:
    run_all(connection, _ROW_CHECKSUMS_SCHEMA)


def _counter_of_writes(connection: sqlite3.Connection) -> None:
    run_all(connection, _WRITES_SCHEMA)


def _revisions(connection: sqlite3.Connection) -> None:
    run_all(connection, _REVISIONS_SCHEMA)


def _file_of_vectors(connection: sqlite3.Connection) -> None:
    run_all(connection, _VECTOR_FILE_SCHEMA)
    connection.execute(_ERASING_TRIGGER)
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM picture)").fetchone()[0]:
        connection.execute("DROP TABLE vector")


def _biases(connection: sqlite3.Connection) -> None:
    run_all(connection, _BIASES_SCHEMA)


def _several_vectors(connection: sqlite3.Connection) -> None:
    run_all(connection, _SEVERAL_VECTORS_SCHEMA)


STEPS: tuple[Step, ...] = (
    _first,
    _times_tracks_and_retention,
    _checksums_and_clock,
    _own_pids_and_sources,
    _row_checksums,
    _counter_of_writes,
    _revisions,
    _file_of_vectors,
    _biases,
    _several_vectors,
)
SCHEMA_VERSION = len(STEPS)


def run_all(connection: sqlite3.Connection, statements: str) -> None:
    """Run statements inside the open transaction; ``executescript`` would commit it."""
    for statement in statements.split(";"):
        connection.execute(statement)


def _make_way_for(connection: sqlite3.Connection, name: str) -> None:
    """Move a metadata column whose name has become the name of a built-in column.

    Valid values move to the built-in column, others to a column with ``_`` after its name.
    """
    moved = connection.execute(
        "SELECT picture, value FROM attribute WHERE name = ? AND kind = 'text'", (name,)
    ).fetchall()
    for picture, value in moved if name != "expires_at" else ():
        if (fitting := value if name == "track" else _time(value)) is not None:
            connection.execute(f"UPDATE picture SET {name} = ? WHERE id = ?", (fitting, picture))
            connection.execute(
                "DELETE FROM attribute WHERE picture = ? AND name = ?", (picture, name)
            )
    free = f"{name}_"
    while connection.execute("SELECT 1 FROM seen WHERE name = ?", (free,)).fetchone():
        free += "_"
    for table in ("attribute", "seen"):
        connection.execute(f"UPDATE {table} SET name = ? WHERE name = ?", (free, name))


def _time(value: str) -> str | None:
    try:
        return utc_text(value)
    except ValueError:
        return None
