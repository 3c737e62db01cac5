"""Decides whether `sync` may remove what a source no longer holds.

A folder may be emptied on purpose, or because a disk below it is not mounted. Removing pictures is
the only change that cannot be repeated, so many removals at once need a permission.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.picture_files import file_of

FREE_PICTURES = 5
"""Number of pictures that may always be removed."""

FREE_SHARE = 0.2
"""Share of the pictures of a source that may be removed without a permission."""

AllowRemoving = int | Literal["all"] | None
"""The most pictures that may be removed; None for :data:`FREE_PICTURES` or :data:`FREE_SHARE`."""


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
