"""Reading what rows say from a gallery's database."""

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
    """Those of the rows that are there, by id."""
    wanted = json.dumps(list(ids))
    metadata: dict[int, dict[str, Scalar]] = {}
    for picture, name, kind, value in run(
        f"SELECT picture, name, kind, value FROM attribute WHERE picture {AMONG}", (wanted,)
    ):
        metadata.setdefault(picture, {})[name] = bool(value) if kind == "boolean" else value
    pictures = run(
        "SELECT id, image, pid, camera, time, track, added_at, expires_at, source, size, mtime, "
        f"digest FROM picture WHERE id {AMONG} AND {ALIVE}",
        (wanted,),
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
    """The value of one column for those of the ids that are there and have one."""
    wanted = json.dumps(list(ids))
    if column in BUILT_IN:  # its name is part of the statement, so none but these
        found = run(
            f"SELECT id, {column} FROM picture "
            f"WHERE id {AMONG} AND {ALIVE} AND {column} IS NOT NULL",
            (wanted,),
        )
        return dict(found.fetchall())
    found = run(
        "SELECT picture, kind, value FROM attribute "
        f"WHERE name = ? AND value IS NOT NULL AND picture {AMONG}",
        (column, wanted),
    )
    return {id_: bool(v) if kind == "boolean" else v for id_, kind, v in found}


def select_values(run: Run, column: str, limit: int) -> list[Value]:
    """Some of the different values that a column has."""
    if column in BUILT_IN:
        found = run(
            f"SELECT DISTINCT {column} FROM picture WHERE {column} IS NOT NULL AND {ALIVE} LIMIT ?",
            (limit,),
        )
        return [value for (value,) in found]
    found = run(
        "SELECT DISTINCT kind, value FROM attribute JOIN picture ON id = picture "
        f"WHERE name = ? AND value IS NOT NULL AND {ALIVE} LIMIT ?",
        (column, limit),
    )
    return [bool(value) if kind == "boolean" else value for kind, value in found]


def select_places(run: Run, last_id: int, limit: int) -> list[Place]:
    """Where the next pictures with a path came from, by ascending id."""
    chunk = run(
        "SELECT id, image, source, size, digest FROM picture "
        f"WHERE id > ? AND image IS NOT NULL AND {ALIVE} ORDER BY id LIMIT ?",
        (last_id, limit),
    )
    return [Place(*cells) for cells in chunk]
