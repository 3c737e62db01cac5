"""Changing what is known of pictures, without encoding them again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finegrain.errors import GalleryError
from finegrain.gallery.backend import Backend
from finegrain.gallery.entries import Entry, checked_entry
from finegrain.gallery.row import Row
from finegrain.gallery.stamps import is_there, stamp_of

CHANGEABLE = ("pid", "camera", "time", "track")
"""Built-in columns that a caller may set."""

_CHUNK_ROWS = 2048


def entry_of(row: Row) -> Entry:
    """What a row states, as it was stored; its thumbnail stays where it is."""
    return Entry(
        image=row.image,
        pid=row.pid,
        camera=row.camera,
        time=row.time,
        track=row.track,
        expires_at=row.expires_at,
        metadata=row.metadata,
        thumbnail=None,
        source=row.source,
        stamp=row.stamp,
    )


def with_columns(row: Row, given: Entry, names: Collection[str]) -> Entry:
    """A row with the columns that were given in the place of its own; the others stay.

    Args:
        row: As it is stored.
        given: The new values.
        names: Which built-in columns were given; of the metadata all that are there.
    """
    own = {name: getattr(given, name) for name in CHANGEABLE if name in names}
    return replace(entry_of(row), metadata={**row.metadata, **given.metadata}, **own)


def update(store: Backend, ids: Iterable[int], columns: Mapping[str, Any]) -> int:
    """Set columns of pictures; returns how many were there.

    Raises:
        GalleryError: A column cannot be set, or a value does not fit.
    """
    fixed = sorted({"id", "image", "added_at", "expires_at"} & columns.keys())
    if fixed:
        raise GalleryError(f"{', '.join(fixed)} cannot be set; a gallery gives these itself.")
    given = checked_entry("columns", columns)
    wanted = list(ids)
    count = 0
    for start in range(0, len(wanted), _CHUNK_ROWS):
        rows = store.rows(wanted[start : start + _CHUNK_ROWS])
        store.rewrite({id_: with_columns(row, given, columns) for id_, row in rows.items()})
        count += len(rows)
    return count


def move(store: Backend, old: Path, new: Path) -> int:
    """Note that a file or folder has moved; returns how many pictures moved with it.

    A picture that was added again under its new path, by the same digest, gives way to the moved
    one, whose id and columns are older.

    Raises:
        GalleryError: No picture is under the old path, or none is where it should be now.
    """
    before, after = os.path.realpath(old), os.path.realpath(new)
    targets: dict[int, str] = {}
    sources: dict[int, str | None] = {}
    by_path: dict[str, list[tuple[int, str | None]]] = {}
    for place in store.places():
        by_path.setdefault(place.image, []).append((place.id, place.digest))
        image = _moved(place.image, before, after)
        source = None if place.source is None else _moved(place.source, before, after)
        if image is not None or source is not None:
            targets[place.id] = place.image if image is None else image
            sources[place.id] = source or place.source
    if not targets:
        raise GalleryError(f"no picture of {store.path} is under {before}; nothing has moved.")
    if not any(map(is_there, targets.values())):
        first = next(iter(targets.values()))
        raise GalleryError(f"expected the pictures under {after} now; {first} is not there.")
    twins: list[int] = []
    for start in range(0, len(targets), _CHUNK_ROWS):
        some = list(targets)[start : start + _CHUNK_ROWS]
        entries = {}
        for id_, row in store.rows(some).items():
            image = targets[id_]
            stamp = row.stamp or stamp_of(image)
            entries[id_] = replace(entry_of(row), image=image, source=sources[id_], stamp=stamp)
            twins += [
                other
                for other, digest in by_path.get(image, ())
                if other not in targets and digest is not None and stamp and digest == stamp.digest
            ]
        store.rewrite(entries)
    if twins:
        store.delete(twins)
    return len(targets)


def _moved(path: str, before: str, after: str) -> str | None:
    """A path that is, or is below, the one that moved; None for others."""
    if path == before or path.startswith((before + os.sep, before + "#")):
        return after + path[len(before) :]
    return None
