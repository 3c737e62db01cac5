"""Queries that read the columns of rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable

from finegrain.gallery.filters.conditions import BUILT_IN, Value
from finegrain.gallery.row import Place, Row
from finegrain.gallery.sqlite.statements import ALIVE, AMONG, stamp_of_cells
from finegrain.records import Scalar

Run = Callable[..., sqlite3.Cursor]
"""The ``execute`` of a connection."""


def select_rows(run: Run, ids: Iterable[int]) -> dict[int, Row]:
    """Rows by id; an id that is not stored is left out."""
    id_list = json.dumps(list(ids))
    metadata: dict[int, dict[str, Scalar]] = {}
    for picture, name, kind, value in run(
        f"SELECT picture, name, kind, value FROM attribute WHERE picture {AMONG}", (id_list,)
    ):
        metadata.setdefault(picture, {})[name] = bool(value) if kind == "boolean" else value
    pictures = run(
        "SELECT id, image, pid, camera, time, track, added_at, expires_at, source, size, mtime, "
        f"digest FROM picture WHERE id {AMONG} AND {ALIVE}",
        (id_list,),
    )
    return {
        id_: Row(
            id=id_,
            image=image,
            pid=pid,
            camera=camera,
            time=time,
            track=track,
            metadata=metadata.get(id_, {}),
            added_at=added_at,
            expires_at=expires_at,
            source=source,
            stamp=stamp_of_cells(*stamp),
        )
        for id_, image, pid, camera, time, track, added_at, expires_at, source, *stamp in pictures
    }


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
