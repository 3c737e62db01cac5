"""Moving the vectors of an older format from their table to the file of vectors.

Each batch is a transaction of its own, so the next opening continues after an interruption.
"""

from __future__ import annotations

import sqlite3
import zlib

import numpy as np

from finegrain.gallery.damage import StoredVector, faults_of
from finegrain.gallery.sqlite.rows import Run
from finegrain.gallery.sqlite.vector_file import StoredRows
from finegrain.gallery.sqlite.vectors import StoredVectors

_CHUNK_ROWS = 8192


def is_moved(run: Run) -> bool:
    """Whether no vectors are left in a table."""
    return not run("SELECT count(*) FROM sqlite_schema WHERE name = 'vector'").fetchone()[0]


def move_some(connection: sqlite3.Connection, vectors: StoredVectors, dim: int) -> None:
    """Move the vectors with the lowest ids inside a write transaction; at last, drop the table."""
    chunk = connection.execute(
        "SELECT id, data, vector.checksum FROM picture LEFT JOIN vector ON picture = id "
        "WHERE id > ? ORDER BY id LIMIT ?",
        (vectors.last_id(connection.execute), _CHUNK_ROWS),
    ).fetchall()
    if not chunk:
        connection.execute("DROP TABLE vector")
        return
    ids, checksums, rows = as_stored(chunk, dim)
    vectors.append(connection, ids, checksums, rows)
    connection.executemany(
        "UPDATE picture SET vector_checksum = ? WHERE id = ?",
        zip(checksums.tolist(), ids.tolist(), strict=True),
    )
    connection.execute("DELETE FROM vector WHERE picture <= ?", (int(ids[-1]),))


def as_stored(chunk: list[StoredVector], dim: int) -> StoredRows:
    """Rows for the file; a damaged vector becomes zeros, with a checksum that does not agree."""
    damaged = {id_ for id_, _ in faults_of(chunk, dim)}
    nothing = bytes(4 * dim)
    data = [nothing if id_ in damaged else bytes(stored) for id_, stored, _ in chunk]  # type: ignore[call-overload]
    wrong = ~zlib.crc32(nothing) & 0xFFFFFFFF
    checksums = [
        wrong if id_ in damaged else zlib.crc32(vector)
        for (id_, _, _), vector in zip(chunk, data, strict=True)
    ]
    return (
        np.array([id_ for id_, _, _ in chunk], np.int64),
        np.array(checksums, np.uint32),
        np.frombuffer(b"".join(data), "<f4").reshape(-1, dim),
    )
