"""Determines the changes that bring a gallery up to date with its folders and tables.

A folder may be emptied on purpose, or because a disk below it is not mounted. Removing pictures is
the only change that cannot be repeated, so many removals at once need a permission.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery, Row, Stamp
from finegrain.gallery.changes import with_columns
from finegrain.gallery.picture_files import file_of, has_changed, is_there, stamp_of
from finegrain.gallery.row import Entry, Place
from finegrain.preprocess import Crop

Mode = Literal["add", "replace", "sync"]
"""What happens to pictures in the gallery: ``add`` skips them, ``replace`` updates them, and
``sync`` also removes those that the source no longer holds."""

FREE_PICTURES = 5
"""Number of pictures that may always be removed."""

FREE_SHARE = 0.2
"""Share of the pictures of a source that may be removed without a permission."""

AllowRemoving = int | Literal["all"] | None
"""The most pictures that may be removed; None for :data:`FREE_PICTURES` or :data:`FREE_SHARE`."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture of the input.

    Attributes:
        position: Position in the input.
        entry: Entry to store.
        names: Columns of the input; a row in the gallery keeps its other built-in columns.
    """

    position: int
    entry: Entry
    names: frozenset[str]


@dataclass(slots=True)
class Changes:
    """Changes to make to a gallery.

    Attributes:
        encode: Positions of pictures that are new or have changed.
        replaced: Rows of changed or damaged pictures by position, with the columns to store them
            with again.
            The old rows are to be deleted after the pictures are encoded.
        stale: Ids of old rows that an interrupted call left.
        rewrite: Rows whose picture is the same, with their new columns.
        remove: Paths by id of rows that the source no longer holds.
        refused: The same, of rows that stay because they are too many to remove without a
            permission.
        gone: Ids of rows to remove whose file is gone.
        seen: Ids of all rows with a path of the input.
        num_updated: Number of rows whose columns change.
        num_moved: Number of rows whose file has moved.
        num_unchanged: Number of rows that stay as they are.
        num_differing: Number of unchanged rows that differ from the input.
        kept_back: Number of rows that the source may no longer hold. They stay because parts of
            the source could not be read.
    """

    encode: list[int] = field(default_factory=list)
    replaced: dict[int, Row] = field(default_factory=dict)
    stale: list[int] = field(default_factory=list)
    rewrite: list[Row] = field(default_factory=list)
    remove: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    num_updated: int = 0
    num_moved: int = 0
    num_unchanged: int = 0
    num_differing: int = 0
    kept_back: int = 0

    def keep_returned(self) -> None:
        """Do not remove pictures whose file was gone and is there again."""
        for id_ in self.gone & self.remove.keys():
            if is_there(self.remove[id_]):
                del self.remove[id_]
                self.num_unchanged += 1


def plan_changes(
    gallery: Gallery,
    items: Sequence[Item],
    mode: Mode,
    *,
    source: str | None,
    is_whole: bool = True,
    unread: Sequence[str] = (),
    allow_removing: AllowRemoving = None,
    removable: Set[int] = frozenset(),
    checksum: bool = False,
) -> Changes:
    """Compare the input with a gallery.

    A picture of the input corresponds to the row with the same path and pid. If its pid has
    changed, it corresponds to a row with the same path and source. A new file with the digest of
    a picture whose file is gone has moved.

    Args:
        gallery: The gallery.
        items: Pictures of the input.
        mode: What may be done.
        source: The folder or table of the pictures; required for ``"sync"``.
        is_whole: Whether all of the source could be read. If not, only pictures whose files are
            gone are removed.
        unread: Folders of the source that could not be listed, for example because a disk is not
            mounted. Pictures below them are kept.
        allow_removing: The most rows to remove; see :func:`refused_removals`.
        removable: Ids of the rows that were there before the source was read.
        checksum: Whether files of the same size and time are compared by their content.
    """
    changes = Changes()
    matched: set[int] = set()
    missing: list[tuple[str, Item]] = []
    by_path: dict[str, list[Item]] = {}
    for item in items:
        if item.entry.image is None:
            changes.encode.append(item.position)
        else:
            by_path.setdefault(item.entry.image, []).append(item)
    for path, rows, damaged in gallery.rows_of(by_path):
        pairs, without_row, stale = _paired(by_path[path], rows, source)
        changes.seen.update(row.id for row in rows)
        changes.num_unchanged += len(by_path[path]) - len(pairs) - len(without_row)
        missing += [(path, item) for item in without_row]
        matched |= {row.id for _, row in pairs}
        if mode != "add":
            changes.stale += stale
            matched.update(stale)
        for item, row in pairs:
            if row.id in damaged:
                changes.encode.append(item.position)
                changes.replaced[item.position] = stored_again(item, row, mode, source)
            else:
                _compare(changes, path, item, row, mode, source, checksum=checksum)
    if mode != "add":
        missing = _without_moved(changes, gallery, missing, matched, source)
    changes.encode = sorted([*changes.encode, *(item.position for _, item in missing)])
    if mode == "sync":
        if source is None:
            raise GalleryError("expected a source for mode 'sync', got None. Pass source=.")
        num = _plan_removals(
            changes,
            gallery,
            removable - matched,
            source,
            is_whole=is_whole,
            unread=unread,
        )
        for id_ in refused_removals(changes.remove, num, source, allow_removing):
            changes.refused[id_] = changes.remove.pop(id_)
    return changes


def _paired(
    items: Sequence[Item], rows: Sequence[Row], source: str | None
) -> tuple[list[tuple[Item, Row]], list[Item], list[int]]:
    """Pair the items of one path with their rows.

    Items with the same path and pid are one picture; the first item counts.

    Returns:
        Pairs, items without a row, and ids of old rows that an interrupted call left.
    """
    distinct: dict[str | None, Item] = {}
    for item in items:
        distinct.setdefault(_spelled(item.entry.pid), item)
    newest: dict[str | None, Row] = {}
    stale = []
    for row in sorted(rows, key=lambda row: row.id, reverse=True):
        twin = newest.setdefault(_spelled(row.pid), row)
        if twin is not row and row.source == twin.source == source is not None:
            stale.append(row.id)
    pairs = [(item, newest.pop(pid)) for pid, item in distinct.items() if pid in newest]
    with_row = {item.position for item, _ in pairs}
    without_row = [item for item in distinct.values() if item.position not in with_row]
    for item in list(without_row):
        # The pid has changed or become known. A row of another source is another product.
        for pid, row in newest.items():
            if row.source in (None, source) or pid is None or "pid" not in item.names:
                pairs.append((item, newest.pop(pid)))
                without_row.remove(item)
                break
    return pairs, without_row, stale


def _spelled(pid: int | str | None) -> str | None:
    return None if pid is None else str(pid)


def _compare(
    changes: Changes,
    path: str,
    item: Item,
    row: Row,
    mode: Mode,
    source: str | None,
    *,
    checksum: bool,
) -> None:
    """Determine the change of an intact row that is in the input again."""
    merged = _merged(item, row)
    is_new_picture = has_changed(row, checksum=checksum)
    is_new_text = merged != row
    if mode == "add":
        changes.num_unchanged += 1
        changes.num_differing += is_new_picture or is_new_text
    elif is_new_picture:
        changes.encode.append(item.position)
        changes.replaced[item.position] = stored_again(item, row, mode, source)
    else:
        rewritten = replace(merged, source=source or row.source, stamp=_stamp_now(row, path))
        if rewritten != row:
            changes.rewrite.append(rewritten)
        changes.num_updated += is_new_text
        changes.num_unchanged += not is_new_text


def stored_again(item: Item, row: Row, mode: Mode, source: str | None) -> Row:
    """The columns with which a picture is stored after it was encoded again."""
    return row if mode == "add" else replace(_merged(item, row), source=source or row.source)


def _merged(item: Item, row: Row) -> Row:
    """A row with the columns of its item."""
    merged = with_columns(row, item.entry, item.names)
    expires_at = item.entry.expires_at
    if expires_at is not None and (row.expires_at is None or merged.time is not None):
        merged = replace(merged, expires_at=expires_at)
    return merged


def _stamp_now(row: Row, image: str) -> Stamp | None:
    """Current stamp of an unchanged picture, whose file may have a new time of modification."""
    try:
        status = file_of(image).stat()
    except OSError:
        return row.stamp
    if row.stamp is None:
        return stamp_of(image)
    return replace(row.stamp, size=status.st_size, mtime=status.st_mtime_ns)


def _without_moved(
    changes: Changes,
    gallery: Gallery,
    missing: Sequence[tuple[str, Item]],
    matched: set[int],
    source: str | None,
) -> list[tuple[str, Item]]:
    """Assign rows whose file is gone to new files of the same content; returns the other items."""
    if not missing:
        return []
    by_digest: dict[str, list[Place]] = {}
    sizes: set[int] = set()
    for place in gallery.places():
        if place.digest is not None and place.size is not None and place.id not in matched:
            by_digest.setdefault(place.digest, []).append(place)
            sizes.add(place.size)
    not_moved = []
    for path, item in missing:
        twin = _gone_twin(path, by_digest, sizes)
        rows = [] if twin is None else gallery.rows([twin.id])
        same_pid = [
            row
            for row in rows
            if "pid" not in item.names or _spelled(row.pid) in (None, _spelled(item.entry.pid))
        ]
        if not same_pid:
            not_moved.append((path, item))
            continue
        (row,) = same_pid
        changes.rewrite.append(
            replace(
                with_columns(row, item.entry, item.names),
                image=path,
                source=source or row.source,
                stamp=stamp_of(path),
            )
        )
        changes.num_moved += 1
        matched.add(row.id)
        if twin is not None and twin.digest is not None:
            by_digest[twin.digest].remove(twin)
    return not_moved


def _gone_twin(image: str, by_digest: dict[str, list[Place]], sizes: set[int]) -> Place | None:
    """A picture with the same content as a file, whose own file is gone."""
    if Crop.of(image) is not None:
        return None
    try:
        if os.path.getsize(image) not in sizes:  # avoids reading most files
            return None
    except OSError:
        return None
    stamp = stamp_of(image)
    places = by_digest.get(stamp.digest or "", []) if stamp is not None else []
    return next((place for place in places if not is_there(place.image)), None)


def _plan_removals(
    changes: Changes,
    gallery: Gallery,
    unmatched: Set[int],
    source: str,
    *,
    is_whole: bool,
    unread: Sequence[str],
) -> int:
    """Plan which unmatched rows to remove; returns the number of rows of the source."""
    num_of_source = 0
    below = tuple(folder.rstrip(os.sep) + os.sep for folder in unread)
    for place in _of_source(gallery.places(), source):
        num_of_source += 1
        if place.id not in unmatched:
            continue
        is_gone = not is_there(place.image)
        if place.image.startswith(below):
            changes.kept_back += 1
        elif (place.source == source and is_whole) or is_gone:
            changes.remove[place.id] = place.image
            changes.gone |= {place.id} if is_gone else set()
        elif place.source == source:
            changes.kept_back += 1
    return num_of_source


def _of_source(places: Iterable[Place], source: str) -> Iterator[Place]:
    """Pictures of a source; for a folder also pictures inside it that came from no table."""
    inside = source.rstrip(os.sep) + os.sep
    for place in places:
        if place.source == source:
            yield place
        elif place.image.startswith(inside) and Crop.of(place.image) is None:
            own = place.source
            if own is None or place.image.startswith(own.rstrip(os.sep) + os.sep):
                yield place


def checked_allowance(allowed: Any) -> AllowRemoving:
    """Check the argument ``allow_removing``.

    Raises:
        GalleryError: It is neither a whole number of at least 0, nor "all", nor None.
    """
    if allowed is None or allowed == "all":
        return None if allowed is None else "all"
    if isinstance(allowed, int | np.integer) and not isinstance(allowed, bool) and allowed >= 0:
        return int(allowed)
    raise GalleryError(
        f"allow_removing is a number of pictures, 'all' or None; got {allowed!r:.40}."
    )


def refused_removals(
    remove: Mapping[int, str], num_of_source: int, source: str, allowed: AllowRemoving
) -> set[int]:
    """Ids of the pictures that must stay, although the source no longer holds them.

    Without a permission, pictures below a folder that exists but is empty stay, as when a disk is
    not mounted. The others stay if they are more than a fifth of the source and more than five.

    Args:
        remove: Paths of the pictures to remove, by id.
        num_of_source: Number of pictures of the source in the gallery.
        source: Path or name of the source.
        allowed: The permission.
    """
    if allowed == "all":
        return set()
    if allowed is not None:
        return set(remove) if len(remove) > allowed else set()
    is_emptied: dict[Path, bool] = {}
    refused = set()
    for id_, image in remove.items():
        folder = file_of(image).parent
        if folder not in is_emptied:
            is_emptied[folder] = _is_below_emptied(folder, Path(source))
        if is_emptied[folder]:
            refused.add(id_)
    num_others = len(remove) - len(refused)
    if num_others > max(FREE_PICTURES, FREE_SHARE * num_of_source):
        return set(remove)
    return refused


def _is_below_emptied(folder: Path, source: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, is inside the source and empty."""
    while source in folder.parents:
        try:
            with os.scandir(folder) as entries:
                return next(entries, None) is None
        except FileNotFoundError:
            folder = folder.parent
        except OSError:
            return True  # it cannot be listed
    return False
