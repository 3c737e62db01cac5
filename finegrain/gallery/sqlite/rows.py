"""Reads, writes and deletes the rows of pictures, and detects damage to them.

A function that takes a connection instead of its ``execute`` writes; its caller has begun a
transaction.

A checksum is the CRC-32 of a canonical JSON text of all columns of a picture, its metadata, and
the CRC-32 of its thumbnail. It is stored with the row. The vector has one of its own, because
vectors are read without their rows (:mod:`finegrain.gallery.sqlite.vectors`).

SQLite can check whole pages (``cksumvfs``), but that is a loadable extension which is not part of
Python's :mod:`sqlite3`. CRC-32 is sufficient: it guards against faults of disks and memory, not
against forgery, and encoding the text takes most of the time.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from finegrain import times
from finegrain.gallery.filters.conditions import BUILT_IN, Value, kind_of
from finegrain.gallery.picture_files import discard_unpacked
from finegrain.gallery.row import Entry, Place, Row, Stamp
from finegrain.gallery.sqlite.expiry import look
from finegrain.index.exact import Vectors
from finegrain.records import Scalar

Run = Callable[..., sqlite3.Cursor]
"""The ``execute`` of a connection."""

# As subqueries, these read the clock once and not for each row.
ALIVE = "(expires_at IS NULL OR expires_at > (SELECT utc_now()))"
"""Condition: the picture has not expired."""

EXPIRED = "expires_at <= (SELECT utc_now())"
"""Condition: the picture has expired."""

AMONG = "IN (SELECT value FROM json_each(?))"
"""Condition: the value is in a list, which is a parameter in JSON."""

Attribute = tuple[str, str, Scalar]
"""Name, kind and value of a metadata column as it is stored: a boolean is 0 or 1."""

CELLS = (
    "id, image, pid, camera, time, track, added_at, expires_at, source, size, mtime, digest, "
    "thumbnail_checksum"
)
"""The columns of the table ``picture`` that a checksum covers."""

UNKNOWN = -1
"""In place of the checksum of a row that an older version wrote."""

UNREADABLE = -2
"""In place of the checksum of a row that was damaged when its checksum was to be computed."""

_CHUNK_ROWS = 8192
_CHUNK_THUMBNAILS = 512  # these are in memory at once
_MARKS = ", ".join("?" * (CELLS.count(",") + 2))

_KINDS = {type(None): "null", str: "text", bool: "boolean", int: "number", float: "number"}
"""Kinds of the values of nearly all cells, which are of no derived type."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

Thumbnails = dict[int, bytes]


def row_checksum(cells: Sequence[Any], attributes: Iterable[Attribute]) -> int:
    """The checksum of a row.

    Args:
        cells: Values of :data:`CELLS`.
        attributes: Metadata, in any order.

    Raises:
        TypeError: A cell is a blob, which no intact row holds.
    """
    return zlib.crc32(_encode([cells, sorted(attributes)]).encode())


@dataclass(slots=True)
class StoredRow:
    """A row as it is stored.

    Attributes:
        cells: Values of :data:`CELLS`.
        checksum: The stored checksum.
        attributes: Its metadata.
    """

    cells: tuple[Any, ...]
    checksum: object
    attributes: list[Attribute] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether the checksum is right, or not known yet."""
        if self.checksum == UNKNOWN:
            return True
        try:
            return row_checksum(self.cells, self.attributes) == self.checksum
        except TypeError:  # damage has turned a text into a blob
            return False


def select_rows(run: Run, ids: Sequence[int]) -> tuple[dict[int, Row], list[int]]:
    """Rows by id, without those that have expired, and the ids of damaged rows."""
    rows, damaged = stored_rows(run, ids, ALIVE)
    return {id_: _row(row) for id_, row in rows.items()}, damaged


def _row(stored: StoredRow) -> Row:
    id_, image, pid, camera, time, track, added_at, expires_at, source, *stamp, _ = stored.cells
    return Row(
        id=id_,
        image=image,
        pid=pid,
        camera=camera,
        time=time,
        track=track,
        metadata={
            name: bool(value) if kind == "boolean" else value
            for name, kind, value in stored.attributes
        },
        added_at=added_at,
        expires_at=expires_at,
        source=source,
        stamp=_stamp(*stamp),
    )


def _stamp(size: int | None, mtime: int | None, digest: str | None) -> Stamp | None:
    if size is None or mtime is None:
        return None
    return Stamp(size=size, mtime=mtime, digest=digest)


def stored_rows(
    run: Run, ids: Sequence[int], condition: str = "TRUE"
) -> tuple[dict[int, StoredRow], list[int]]:
    """Read rows by id.

    Args:
        run: The ``execute`` of a connection.
        ids: Ids; those that are not stored are left out.
        condition: Further condition on the table ``picture``, in SQL.

    Returns:
        The intact rows by id, and the ids of the damaged ones.
    """
    id_list = json.dumps(ids)
    pictures = f"SELECT {CELLS}, checksum FROM picture WHERE id {AMONG} AND {condition}"
    metadata = f"SELECT picture, name, kind, value FROM attribute WHERE picture {AMONG}"
    try:
        rows = {row[0]: StoredRow(row[:-1], row[-1]) for row in run(pictures, (id_list,))}
        for id_, name, kind, value in run(metadata, (id_list,)):
            if id_ in rows:
                rows[id_].attributes.append((name, kind, value))
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        if len(ids) == 1:
            return {}, list(ids)
        # A text is not UTF-8; find the row by halves.
        middle = len(ids) // 2
        first, damaged = stored_rows(run, ids[:middle], condition)
        second, more_damaged = stored_rows(run, ids[middle:], condition)
        return first | second, damaged + more_damaged
    damaged = [id_ for id_, row in rows.items() if not row.is_intact]
    for id_ in damaged:
        del rows[id_]
    return rows, damaged


def damaged_thumbnails(run: Run) -> Iterator[int]:
    """Ids of all pictures whose thumbnail is damaged or lost; reads all thumbnails."""
    last = 0
    while ids := select_ids(run, f"id > {last}", limit=_CHUNK_THUMBNAILS):
        yield from select_thumbnails(run, ids)[1]
        last = ids[-1]


def damaged_rows(run: Run) -> Iterator[int]:
    """Ids of all damaged rows; reads all rows."""
    last = 0
    while ids := select_ids(run, f"id > {last}"):
        yield from stored_rows(run, ids)[1]
        last = ids[-1]


def lacks_checksums(run: Run) -> bool:
    """Whether there are rows of an older version without a checksum."""
    return bool(select_ids(run, f"checksum = {UNKNOWN}", limit=1))


def select_ids(run: Run, condition: str, limit: int | None = None) -> list[int]:
    """The lowest ids that meet a condition."""
    cursor = run(
        f"SELECT id FROM picture WHERE {condition} ORDER BY id LIMIT {limit or _CHUNK_ROWS}"
    )
    return [id_ for (id_,) in cursor]


def select_thumbnails(
    run: Run, ids: Sequence[int], condition: str = "TRUE"
) -> tuple[Thumbnails, list[int]]:
    """JPEG files by id, and the ids of the pictures whose thumbnail is damaged or lost."""
    thumbnails: Thumbnails = {}
    damaged = []
    for id_, jpeg, stored, checksum in run(
        "SELECT id, jpeg, thumbnail_checksum, checksum FROM picture "
        f"LEFT JOIN thumbnail ON picture = id WHERE id {AMONG} AND {condition} "
        "AND (jpeg IS NOT NULL OR thumbnail_checksum IS NOT NULL)",
        (json.dumps(ids),),
    ):
        if isinstance(jpeg, bytes) and (checksum == UNKNOWN or zlib.crc32(jpeg) == stored):
            thumbnails[id_] = jpeg
        else:
            damaged.append(id_)
    return thumbnails, damaged


def select_column(run: Run, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
    """Value of one column by id; ids that are not stored or have no value are left out."""
    id_list = json.dumps(list(ids))
    if column in BUILT_IN:  # the name becomes part of the SQL text, so only these
        cells = run(
            f"SELECT id, {column} FROM picture "
            f"WHERE id {AMONG} AND {ALIVE} AND {column} IS NOT NULL",
            (id_list,),
        )
        return dict(cells.fetchall())
    cells = run(
        "SELECT picture, kind, value FROM attribute "
        f"WHERE name = ? AND value IS NOT NULL AND picture {AMONG}",
        (column, id_list),
    )
    return {id_: bool(v) if kind == "boolean" else v for id_, kind, v in cells}


def select_values(run: Run, column: str, limit: int) -> list[Value]:
    """Up to ``limit`` distinct values of a column."""
    if column in BUILT_IN:
        cells = run(
            f"SELECT DISTINCT {column} FROM picture WHERE {column} IS NOT NULL AND {ALIVE} LIMIT ?",
            (limit,),
        )
        return [value for (value,) in cells]
    cells = run(
        "SELECT DISTINCT kind, value FROM attribute JOIN picture ON id = picture "
        f"WHERE name = ? AND value IS NOT NULL AND {ALIVE} LIMIT ?",
        (column, limit),
    )
    return [bool(value) if kind == "boolean" else value for kind, value in cells]


def select_places(run: Run, last_id: int, limit: int) -> list[Place]:
    """Origins of up to ``limit`` pictures with a path and an id above ``last_id``, by id."""
    chunk = run(
        "SELECT id, image, source, size, digest FROM picture "
        f"WHERE id > ? AND image IS NOT NULL AND {ALIVE} ORDER BY id LIMIT ?",
        (last_id, limit),
    )
    return [Place(*cells) for cells in chunk]


def insert_rows(
    connection: sqlite3.Connection, checksums: Iterable[int], entries: Sequence[Entry]
) -> range:
    """Write new rows under the ids after the last one ever assigned; return the new ids.

    Args:
        connection: The writing connection.
        checksums: CRC-32 of the vectors, which the caller writes to their file.
        entries: The rows.
    """
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
        f"INSERT INTO picture ({CELLS}, checksum, vector_checksum) VALUES ({_MARKS}, ?)",
        (
            (*row, row_checksum(row, own), checksum)
            for row, own, checksum in zip(cells, attributes, checksums, strict=True)
        ),
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
    (revision,) = connection.execute(
        "UPDATE gallery SET revision = revision + 1 RETURNING revision"
    ).fetchone()
    updates = []
    for id_, old in stored.items():
        (_, *_, added_at, _, _, _, _, _, thumbnail_checksum) = old.cells
        cells = _cells(id_, new[id_], added_at, thumbnail_checksum)
        is_known = old.checksum != UNKNOWN
        checksum = row_checksum(cells, attributes[id_]) if is_known else UNKNOWN
        updates.append((*cells, checksum, revision, id_))
    connection.executemany(
        f"UPDATE picture SET ({CELLS}, checksum, revision) = ({_MARKS}, ?) WHERE id = ?", updates
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
        (name, kind, int(value) if value is True or value is False else value)
        for name, value in entry.metadata.items()
        for kind in (_KINDS.get(type(value)) or kind_of(value),)  # type: ignore[arg-type]
    ]


def _insert_attributes(
    connection: sqlite3.Connection, rows: Iterable[tuple[int, list[Attribute]]]
) -> None:
    attributes = [(id_, *attribute) for id_, own in rows for attribute in own]
    connection.executemany("INSERT INTO attribute VALUES (?, ?, ?, ?)", attributes)
    connection.executemany(
        "INSERT OR IGNORE INTO seen VALUES (?, ?)",
        set(map(itemgetter(1, 2), attributes)),
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
    summed = [(None, UNREADABLE, id_) for id_ in damaged]
    for id_, row in rows.items():
        cells = (*row.cells[:-1], thumbnails.get(id_))
        summed.append((cells[-1], row_checksum(cells, row.attributes), id_))
    connection.executemany(
        "UPDATE picture SET thumbnail_checksum = ?, checksum = ? WHERE id = ?", summed
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


def repair_derived(connection: sqlite3.Connection, last_id: int) -> None:
    """Repair what other tables tell: the names of metadata columns, and the last assigned id.

    Args:
        connection: The writing connection.
        last_id: The highest id that the file of vectors holds.
    """
    connection.execute(
        "INSERT OR IGNORE INTO seen SELECT DISTINCT name, kind FROM attribute "
        "WHERE kind IN ('null', 'text', 'boolean', 'number')"
    )
    (last,) = connection.execute(
        "SELECT max(?, coalesce((SELECT max(id) FROM picture), 0), "
        "coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'picture'), 0))",
        (last_id,),
    ).fetchone()
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'picture'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('picture', ?)", (last,))


def blobs(vectors: Vectors) -> Iterator[bytes]:
    """Rows of ``[N, D]`` in their stored form: little-endian float32."""
    return (vector.tobytes() for vector in vectors.astype("<f4", copy=False))
