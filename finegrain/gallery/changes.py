"""Changing the columns and paths of pictures without encoding them again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finegrain.errors import GalleryError
from finegrain.gallery.backend import Backend
from finegrain.gallery.entries import CHANGEABLE, entry_from_mapping
from finegrain.gallery.filters.conditions import Value, kind_of
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.picture_files import is_there, stamp_of
from finegrain.gallery.row import Entry, Row

_CHUNK_ROWS = 2048


def with_columns(row: Row, changes: Entry, names: Collection[str]) -> Row:
    """A row after some of its columns change.

    Args:
        row: The stored row.
        changes: The new values.
        names: Built-in columns to take from ``changes``. All its metadata is taken.
    """
    built_in = {name: getattr(changes, name) for name in CHANGEABLE if name in names}
    return replace(row, metadata={**row.metadata, **changes.metadata}, **built_in)


def update(
    store: Backend, ids: Iterable[int], columns: Mapping[str, Any], where: str | None = None
) -> int:
    """Set columns of pictures; return the number of pictures changed.

    Args:
        store: The storage of the gallery.
        ids: Ids of the pictures.
        columns: New values by name.
        where: Change only pictures that still match this filter.

    Raises:
        GalleryError: A column cannot be set, or a value is of a kind that its column never held.
    """
    fixed = sorted({"id", "image", "added_at", "expires_at"} & columns.keys())
    if fixed:
        raise GalleryError(f"{', '.join(fixed)} cannot be set; the gallery sets these values.")
    changes = entry_from_mapping("columns", columns)
    for note in notes_on_kinds(store.columns(), [changes]):
        raise GalleryError(
            f"{note}. Nothing was changed. Give a value of the kind that the column holds, or set "
            "another column. To change a whole column, index its table with --replace."
        )
    condition = None if where is None else parse(where, store.columns())
    all_ids = [int(id_) for id_ in ids]
    return sum(
        store.change(
            all_ids[start : start + _CHUNK_ROWS],
            condition,
            lambda row: with_columns(row, changes, columns),
        )
        for start in range(0, len(all_ids), _CHUNK_ROWS)
    )


def notes_on_kinds(columns: Mapping[str, Collection[str]], entries: Iterable[Entry]) -> list[str]:
    """Notes on metadata of a kind that its column never held.

    Args:
        columns: Kinds of value that each column has held.
        entries: Pictures with metadata.
    """
    values: dict[tuple[str, str], list[Value]] = {}
    for entry in entries:
        for name, value in entry.metadata.items():
            kinds = columns.get(name)
            if kinds and value is not None and kind_of(value) not in kinds:
                values.setdefault((name, kind_of(value)), []).append(value)
    return [
        f"the column {name!r:.60} holds {' and '.join(sorted(columns[name]))}, and "
        f"{those[0]!r:.60} is {kind}"
        + (f", as are the values of {len(those) - 1} more pictures" if len(those) > 1 else "")
        for (name, kind), those in values.items()
    ]


def move(store: Backend, old: Path, new: Path) -> int:
    """Record that a file or folder has moved; return the number of pictures that moved with it.

    The same picture may have been added again under its new path; it is then recognised by its
    digest and deleted, since the moved picture has the older id and columns.

    Raises:
        GalleryError: No picture is under the old path, or no file is at any of the new paths.
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
        chunk_ids = list(targets)[start : start + _CHUNK_ROWS]
        moved = []
        for id_, row in store.rows(chunk_ids).items():
            image = targets[id_]
            stamp = row.stamp or stamp_of(image)
            moved.append(replace(row, image=image, source=sources[id_], stamp=stamp))
            twins += [
                other
                for other, digest in by_path.get(image, ())
                if other not in targets and digest is not None and stamp and digest == stamp.digest
            ]
        store.rewrite(moved)
    if twins:
        store.delete(twins)
    return len(targets)


def _moved(path: str, before: str, after: str) -> str | None:
    """The new path of a file at or below the moved path; None for other files."""
    if path == before or path.startswith((before + os.sep, before + "#")):
        return after + path[len(before) :]
    return None
