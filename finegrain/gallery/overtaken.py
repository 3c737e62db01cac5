"""Finds pictures that another process has added since a caller decided to add them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from finegrain.gallery.row import Entry, Row
from finegrain.records import Pid


class _Rows(Protocol):
    """The methods of :class:`~finegrain.gallery.backend.Backend` that are needed here."""

    def known(self, images: Iterable[str]) -> Mapping[str | None, Sequence[int]]: ...
    def rows(self, ids: Iterable[int]) -> Mapping[int, Row]: ...


@dataclass(frozen=True, slots=True)
class Inserted:
    """Result of adding pictures that another process may add at the same time.

    Attributes:
        ids: Ids in input order. A picture that another process has added has its id there.
        num_overtaken: Number of pictures that another process has added.
    """

    ids: list[int]
    num_overtaken: int


def overtaken(store: _Rows, entries: Sequence[Entry], known: Set[int]) -> dict[int, int]:
    """Positions of the entries that another process has added, with their lowest ids there.

    Two entries are the same picture if their path and pid are the same. Several products may share
    a picture, and a picture without a path is always a new one.

    Args:
        store: The storage of the gallery.
        entries: Pictures to add.
        known: Ids that the caller has added, or found when it decided to add the entries.
    """
    by_path = store.known({entry.image for entry in entries if entry.image is not None})
    others = {id_ for ids in by_path.values() for id_ in ids} - known
    rows = store.rows(sorted(others)) if others else {}
    ids: dict[tuple[str | None, str], int] = {}
    for row in sorted(rows.values(), key=lambda row: row.id):
        ids.setdefault(_key(row.image, row.pid), row.id)
    keys = ((position, _key(entry.image, entry.pid)) for position, entry in enumerate(entries))
    return {position: ids[key] for position, key in keys if key in ids}


def _key(image: str | None, pid: Pid | None) -> tuple[str | None, str]:
    return image, "" if pid is None else f"={pid}"
