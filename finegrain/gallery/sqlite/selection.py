"""Queries that read the columns of rows, and detect damage to them."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from finegrain.gallery.filters.conditions import BUILT_IN, Value
from finegrain.gallery.row import Place, Row, Stamp
from finegrain.gallery.sqlite.checksums import CELLS, UNKNOWN, StoredRow
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

_CHUNK_ROWS = 8192
_CHUNK_THUMBNAILS = 512  # these are in memory at once

Thumbnails = dict[int, bytes]


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
