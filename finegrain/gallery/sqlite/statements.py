"""Statements that write and delete rows. The caller has begun a transaction."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from finegrain import times
from finegrain.gallery.filters.conditions import kind_of
from finegrain.gallery.row import Entry, Row
from finegrain.gallery.sqlite.checksums import (
    CELLS,
    UNKNOWN,
    UNREADABLE,
    Attribute,
    row_checksum,
)
from finegrain.gallery.sqlite.expiry import look
from finegrain.gallery.sqlite.selection import AMONG, select_ids, stored_rows
from finegrain.gallery.unpacked import discard_unpacked
from finegrain.index.exact import Vectors
from finegrain.records import Scalar

_MARKS = ", ".join("?" * (CELLS.count(",") + 2))


def insert_rows(
    connection: sqlite3.Connection, vectors: Vectors, entries: Sequence[Entry]
) -> range:
    """Write new rows under the ids after the last one ever assigned; return the new ids."""
    now = times.utc_text(times.now())
    (last,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'picture'"
    ).fetchone()
    ids = range(last + 1, last + 1 + len(entries))
    attributes = list(map(_attributes, entries))
    cells = (
        _cells(id_, entry, now, None if entry.thumbnail is None else zlib.crc32(entry.thumbnail))
        for id_, entry in zip(ids, entries, strict=True)
    )
    connection.executemany(
        f"INSERT INTO picture ({CELLS}, checksum) VALUES ({_MARKS})",
        ((*row, row_checksum(row, own)) for row, own in zip(cells, attributes, strict=True)),
    )
    connection.executemany(
        "INSERT INTO vector (picture, data, checksum) VALUES (?, ?, ?)",
        ((id_, data, zlib.crc32(data)) for id_, data in zip(ids, blobs(vectors), strict=True)),
    )
    connection.executemany(
        "INSERT INTO thumbnail VALUES (?, ?)",
        (
            (id_, entry.thumbnail)
            for id_, entry in zip(ids, entries, strict=True)
            if entry.thumbnail is not None
        ),
    )
    _insert_attributes(connection, zip(ids, attributes, strict=True))
    return ids


def rewrite_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Replace the columns of rows; vectors and thumbnails stay, and so do damaged rows."""
    new = {row.id: row for row in rows}
    stored, _ = stored_rows(connection.execute, list(new))
    attributes = {id_: _attributes(new[id_]) for id_ in stored}
    updates = []
    for id_, old in stored.items():
        (_, *_, added_at, _, _, _, _, _, thumbnail_checksum) = old.cells
        cells = _cells(id_, new[id_], added_at, thumbnail_checksum)
        is_known = old.checksum != UNKNOWN
        updates.append((*cells, row_checksum(cells, attributes[id_]) if is_known else UNKNOWN, id_))
    connection.executemany(
        f"UPDATE picture SET ({CELLS}, checksum) = ({_MARKS}) WHERE id = ?", updates
    )
    connection.execute(f"DELETE FROM attribute WHERE picture {AMONG}", (json.dumps(list(stored)),))
    _insert_attributes(connection, attributes.items())


def _cells(
    id_: int, entry: Entry, added_at: str, thumbnail_checksum: int | None
) -> tuple[Any, ...]:
    """The values of :data:`CELLS`."""
    stamp = entry.stamp
    return (
        id_,
        entry.image,
        entry.pid,
        entry.camera,
        entry.time,
        entry.track,
        added_at,
        entry.expires_at,
        entry.source,
        *((None, None, None) if stamp is None else (stamp.size, stamp.mtime, stamp.digest)),
        thumbnail_checksum,
    )


def _attributes(entry: Entry) -> list[Attribute]:
    return [
        (name, _stored_kind(value), int(value) if isinstance(value, bool) else value)
        for name, value in entry.metadata.items()
    ]


def _insert_attributes(
    connection: sqlite3.Connection, rows: Iterable[tuple[int, list[Attribute]]]
) -> None:
    attributes = [(id_, *attribute) for id_, own in rows for attribute in own]
    connection.executemany("INSERT INTO attribute VALUES (?, ?, ?, ?)", attributes)
    connection.executemany(
        "INSERT OR IGNORE INTO seen VALUES (?, ?)",
        {(name, kind) for _, name, kind, _ in attributes},
    )


def add_checksums(connection: sqlite3.Connection) -> None:
    """Compute the checksums of some rows that an older version wrote."""
    run = connection.execute
    ids = select_ids(run, f"checksum = {UNKNOWN}")
    rows, damaged = stored_rows(run, ids)
    chosen = (json.dumps(ids),)
    thumbnails = {
        id_: zlib.crc32(jpeg)
        for id_, jpeg in run(f"SELECT picture, jpeg FROM thumbnail WHERE picture {AMONG}", chosen)
    }
    vectors = run(
        f"SELECT picture, data FROM vector WHERE picture {AMONG} AND checksum IS NULL", chosen
    ).fetchall()
    summed = [(None, UNREADABLE, id_) for id_ in damaged]
    for id_, row in rows.items():
        cells = (*row.cells[:-1], thumbnails.get(id_))
        summed.append((cells[-1], row_checksum(cells, row.attributes), id_))
    connection.executemany(
        "UPDATE picture SET thumbnail_checksum = ?, checksum = ? WHERE id = ?", summed
    )
    connection.executemany(
        "UPDATE vector SET checksum = ? WHERE picture = ?",
        ((zlib.crc32(data), id_) for id_, data in vectors),
    )


def remove_rows(
    connection: sqlite3.Connection, condition: str, parameters: tuple[str, ...] = ()
) -> list[int]:
    """Delete rows and record that their bytes must be erased; return their ids.

    Unpacked files of the pictures are deleted before the rows are committed, so that no file stays
    without a row after a crash.
    """
    # As bytes, since a damaged text may not be UTF-8.
    rows = connection.execute(
        f"SELECT id, CAST(image AS BLOB) FROM picture WHERE {condition}", parameters
    ).fetchall()
    images = {id_: image and image.decode(errors="replace") for id_, image in rows}
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


def remove_expired(
    connection: sqlite3.Connection, *, trust_clock: bool = False
) -> tuple[list[int], list[int]]:
    """Delete rows that have expired by the trusted time.

    Returns:
        Their ids, and the ids of damaged rows, which stay: their time may be wrong.
    """
    until = look(connection, trust=trust_clock)
    cursor = connection.execute("SELECT id FROM picture WHERE expires_at <= ?", (until,))
    intact, damaged = stored_rows(connection.execute, [id_ for (id_,) in cursor])
    return remove_rows(connection, f"id {AMONG}", (json.dumps(list(intact)),)), damaged


def blobs(vectors: Vectors) -> Iterator[bytes]:
    """Rows of ``[N, D]`` in their stored form: little-endian float32."""
    return (vector.tobytes() for vector in vectors.astype("<f4", copy=False))


def _stored_kind(value: Scalar) -> str:
    return "null" if value is None else kind_of(value)
