"""Determines which pictures to add are in a gallery already.

A caller chooses what happens to them, or it has decided before and another process has added some
of them since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from finegrain.errors import GalleryError
from finegrain.gallery.row import Entry, Row
from finegrain.index.exact import Vectors
from finegrain.records import Pid

OnDuplicate = Literal["add", "skip", "replace", "error"]
"""What to do with a picture whose path is in the gallery already."""


class _Rows(Protocol):
    """The members of :class:`~finegrain.gallery.backend.Backend` that are needed here."""

    @property
    def path(self) -> Path | str: ...
    def known(self, images: Iterable[str]) -> Mapping[str | None, Sequence[int]]: ...
    def rows(self, ids: Iterable[int]) -> Mapping[int, Row]: ...


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What happens to rows whose paths are among the pictures to add.

    Attributes:
        kept: Ids of the rows that stay in place of a picture, by the picture's position.
        replaced: Ids of the rows to delete once the pictures are added.
    """

    kept: dict[int, int] = field(default_factory=dict)
    replaced: list[int] = field(default_factory=list)


def checked_choice(on_duplicate: Any) -> None:
    """Check that ``on_duplicate`` is one of its choices.

    Raises:
        GalleryError: It is not.
    """
    choices = get_args(OnDuplicate)
    if on_duplicate not in choices:
        raise GalleryError(
            f"on_duplicate is one of {', '.join(map(repr, choices))}; got {on_duplicate!r:.40}."
        )


def duplicates(store: _Rows, entries: Sequence[Entry], on_duplicate: OnDuplicate) -> Duplicates:
    """Compare the paths of pictures to add with those of a gallery.

    Raises:
        GalleryError: A path occurs more than once among the pictures, or is in the gallery
            although ``on_duplicate`` is "error".
    """
    if on_duplicate == "add":
        return Duplicates()
    known = store.known(_paths_once(entries))
    if on_duplicate == "error" and known:
        raise GalleryError(
            f"{store.path} holds {next(iter(known))!r:.200} already. Pass "
            "on_duplicate='skip' to keep what is there, or 'replace' to put the new "
            "picture in its place."
        )
    if on_duplicate == "skip":
        return Duplicates(
            kept={
                position: min(known[entry.image])
                for position, entry in enumerate(entries)
                if entry.image in known
            }
        )
    return Duplicates(replaced=list(chain.from_iterable(known.values())))


def _paths_once(entries: Sequence[Entry]) -> list[str]:
    """Paths of the entries that have one.

    Raises:
        GalleryError: A path occurs more than once.
    """
    images = [entry.image for entry in entries if entry.image is not None]
    if len(set(images)) < len(images):
        duplicate = next(image for image in images if images.count(image) > 1)
        raise GalleryError(
            f"{duplicate!r:.200} is among the pictures more than once; with on_duplicate= a path "
            "names one picture. Leave it out, or on_duplicate='add'."
        )
    return images


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


def insert_except(
    kept: Mapping[int, int],
    vectors: Vectors,
    entries: Sequence[Entry],
    insert: Callable[[Vectors, Sequence[Entry]], Iterable[int]],
) -> list[int]:
    """Add all pictures but those that are in the gallery already.

    Args:
        kept: Ids of the existing rows, by the positions of their pictures.
        vectors: Vectors of all pictures, ``[N, D]``.
        entries: Columns of all pictures.
        insert: Writes rows and returns their ids.

    Returns:
        The ids of the new and of the existing rows, in input order.
    """
    if not kept:
        return list(insert(vectors, entries))
    positions = [position for position in range(len(entries)) if position not in kept]
    new = iter(insert(vectors[positions], [entries[position] for position in positions]))
    return [kept[n] if n in kept else next(new) for n in range(len(entries))]


def _key(image: str | None, pid: Pid | None) -> tuple[str | None, str]:
    return image, "" if pid is None else f"={pid}"
