"""Keeping the engine cache within a size: what was not used for longest goes first."""

from __future__ import annotations

import math
import os
import re
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from finegrain.errors import PlanError

VARIABLE = "FINEGRAIN_ENGINE_CACHE_GIB"
DEFAULT_GIB = 8.0
"""A dozen and more pairs of ViT-B/16 towers."""
FRESH_SECONDS = 3600
"""What was used within it stays: of a plan's two engines one must not drive out the other."""
LOCK = ".lock"
"""Ending of the empty file that is locked while an engine is read, built or removed.

Lock files are never removed: a process may already wait for the file that would be deleted.
"""
# Whoever names a folder of their own may keep other things in it.
_OURS = re.compile(
    r"(?P<stem>[0-9a-f]{16,64}(-[0-9a-f]{16})?)\.(engine|json|kernels|timings)(\.\d+\.\d+\.tmp)?"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The files of one engine, or of what is kept beside engines."""

    files: tuple[Path, ...]
    size: int
    used: float


def stated_limit() -> int:
    """Bytes that the cache may take, from the environment or by default.

    Raises:
        PlanError: The variable is no size.
    """
    stated = os.environ.get(VARIABLE) or str(DEFAULT_GIB)
    try:
        size = float(stated)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise PlanError(
            f"{VARIABLE} is {stated!r:.40}; expected the size of the engine cache in GiB, such as 8"
        )
    return int(size * 2**30)


def evict(folder: Path, max_bytes: int) -> None:
    """Remove entries, least recently used first, until the folder is within a size.

    An entry that is locked, or was used in the last hour, stays, so that a folder may be larger
    for a while. Processes may do this at once: each entry is removed under its own lock, and
    only if nobody used it since it was chosen.
    """
    entries = _entries(folder)
    excess = sum(entry.size for entry in entries.values()) - max_bytes
    aged = time.time() - FRESH_SECONDS
    for stem, entry in sorted(entries.items(), key=lambda item: item[1].used):
        if excess <= 0 or entry.used > aged:
            return
        if _remove(folder, stem, entry):
            excess -= entry.size


def _remove(folder: Path, stem: str, entry: _Entry) -> bool:
    """Remove an entry unless it is in use; returns whether it is gone."""
    try:
        with FileLock(folder / f"{stem}{LOCK}", timeout=0):
            now = _entries(folder).get(stem)
            if now is not None and now.used > entry.used:
                return False
            for file in entry.files:
                file.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _entries(folder: Path) -> dict[str, _Entry]:
    """Entries by the stem of their files; what a process left unfinished is part of its own."""
    found: defaultdict[str, list[tuple[Path, os.stat_result]]] = defaultdict(list)
    with os.scandir(folder) as items:
        for item in items:
            ours = _OURS.fullmatch(item.name)
            if ours is not None and item.is_file(follow_symlinks=False):
                # Another process may evict as well.
                with suppress(FileNotFoundError):
                    about = item.stat()
                    found[ours["stem"]].append((Path(item.path), about))
    return {
        stem: _Entry(
            files=tuple(path for path, _ in files),
            size=sum(about.st_size for _, about in files),
            used=max(about.st_mtime for _, about in files),
        )
        for stem, files in found.items()
    }
