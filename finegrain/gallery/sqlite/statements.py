"""SQL statements that several modules share."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence

from finegrain import times
from finegrain.gallery.entries import Entry
from finegrain.gallery.filters.conditions import kind_of
from finegrain.gallery.row import Stamp
from finegrain.gallery.sqlite.expiry import look
from finegrain.gallery.unpacked import discard_unpacked
from finegrain.index.exact import Vectors
from finegrain.records import Scalar

# As subqueries, these read the clock once and not for each row.
ALIVE = "(expires_at IS NULL OR expires_at > (SELECT utc_now()))"
"""Condition: the picture has not expired."""

EXPIRED = "expires_at <= (SELECT utc_now())"
"""Condition: the picture has expired."""

AMONG = "IN (SELECT value FROM json_each(?))"
"""Condition: the value is in a list, which is a parameter in JSON."""


def insert_rows(
    connection: sqlite3.Connection, vectors: Vectors, entries: Sequence[Entry]
) -> range:
    """Write new rows under the ids after the last one ever assigned; return the new ids."""
    now = times.utc_text(times.now())
    (last,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'picture'"
    ).fetchone()
    ids = range(last + 1, last + 1 + len(entries))
    numbered = list(zip(ids, entries, strict=True))
    connection.executemany(
        "INSERT INTO picture (id, image, pid, camera, time, track, added_at, expires_at, "
        "source, size, mtime, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                i,
                e.image,
                e.pid,
                e.camera,
                e.time,
                e.track,
                now,
                e.expires_at,
                e.source,
                *stamp_cells(e.stamp),
            )
            for i, e in numbered
        ),
    )
    connection.executemany(
        "INSERT INTO vector (picture, data, checksum) VALUES (?, ?, ?)",
        ((id_, data, zlib.crc32(data)) for id_, data in zip(ids, blobs(vectors), strict=True)),
    )
    connection.executemany(
        "INSERT INTO thumbnail VALUES (?, ?)",
        ((id_, entry.thumbnail) for id_, entry in numbered if entry.thumbnail is not None),
    )
    _insert_metadata(connection, numbered)
    return ids


def rewrite_rows(connection: sqlite3.Connection, entries: Mapping[int, Entry]) -> None:
    """Replace the columns of rows; vectors and thumbnails stay."""
    ids = json.dumps(list(entries))
    stored = {i for (i,) in connection.execute(f"SELECT id FROM picture WHERE id {AMONG}", (ids,))}
    numbered = [(id_, entry) for id_, entry in entries.items() if id_ in stored]
    connection.executemany(
        "UPDATE picture SET image = ?, pid = ?, camera = ?, time = ?, track = ?, expires_at = ?, "
        "source = ?, size = ?, mtime = ?, digest = ? WHERE id = ?",
        (
            (
                entry.image,
                entry.pid,
                entry.camera,
                entry.time,
                entry.track,
                entry.expires_at,
                entry.source,
                *stamp_cells(entry.stamp),
                id_,
            )
            for id_, entry in numbered
        ),
    )
    connection.execute(f"DELETE FROM attribute WHERE picture {AMONG}", (ids,))
    _insert_metadata(connection, numbered)


def _insert_metadata(connection: sqlite3.Connection, numbered: Sequence[tuple[int, Entry]]) -> None:
    attributes = [
        (id_, name, _stored_kind(value), value)
        for id_, entry in numbered
        for name, value in entry.metadata.items()
    ]
    connection.executemany("INSERT INTO attribute VALUES (?, ?, ?, ?)", attributes)
    connection.executemany(
        "INSERT OR IGNORE INTO seen VALUES (?, ?)",
        {(name, kind) for _, name, kind, _ in attributes},
    )


def stamp_cells(stamp: Stamp | None) -> tuple[int | None, int | None, str | None]:
    """Size, time and digest of a picture's file, as table cells."""
    return (None, None, None) if stamp is None else (stamp.size, stamp.mtime, stamp.digest)


def stamp_of_cells(size: int | None, mtime: int | None, digest: str | None) -> Stamp | None:
    """The stamp that :func:`stamp_cells` wrote."""
    if size is None or mtime is None:
        return None
    return Stamp(size=size, mtime=mtime, digest=digest)


def remove_rows(
    connection: sqlite3.Connection, condition: str, parameters: tuple[str, ...] = ()
) -> list[int]:
    """Delete rows and record that their bytes must be erased; return their ids.

    Unpacked files of the pictures are deleted before the rows are committed, so that no file stays
    without a row after a crash.
    """
    rows = connection.execute(f"SELECT id, image FROM picture WHERE {condition}", parameters)
    images = dict(rows.fetchall())
    if images:
        connection.execute(f"DELETE FROM picture WHERE id {AMONG}", (json.dumps(list(images)),))
        connection.execute("UPDATE gallery SET deletions = deletions + 1")
        discard_unpacked(images.values(), lambda path: _is_used(connection, path))
    return list(images)


def _is_used(connection: sqlite3.Connection, path: str) -> bool:
    """Whether a picture has a path, or is a part of the picture with it (``path#xywh=...``)."""
    cursor = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM picture WHERE image = ?) "
        "OR EXISTS (SELECT 1 FROM picture WHERE image >= ? AND image < ?)",
        (path, f"{path}#", f"{path}$"),
    )
    return bool(cursor.fetchone()[0])


def remove_expired(connection: sqlite3.Connection, *, trust_clock: bool = False) -> list[int]:
    """Delete rows that have expired by the trusted time; return their ids."""
    return remove_rows(connection, "expires_at <= ?", (look(connection, trust=trust_clock),))


def blobs(vectors: Vectors) -> Iterator[bytes]:
    """Rows of ``[N, D]`` in their stored form: little-endian float32."""
    return (vector.tobytes() for vector in vectors.astype("<f4", copy=False))


def _stored_kind(value: Scalar) -> str:
    return "null" if value is None else kind_of(value)
