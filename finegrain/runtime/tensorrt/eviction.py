"""Limiting the size of the engine cache by removing the least recently used engines."""

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
"""Enough for more than a dozen pairs of ViT-B/16 towers."""
FRESH_SECONDS = 3600
"""Entries used within this time stay, so that one engine of a plan never evicts the other."""
LOCK = ".lock"
"""Suffix of the empty file that is locked while an engine is read, built or removed.

Lock files are never removed, because a process may be waiting for the lock.
"""
# A folder that the user chose may hold other files.
_CACHE_FILE = re.compile(
    r"(?P<stem>[0-9a-f]{16,64}(-[0-9a-f]{16})?)\.(engine|json|kernels|timings)(\.\d+\.\d+\.tmp)?"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The files of one engine, of timings, or of compiled kernels."""

    files: tuple[Path, ...]
    size: int
    used: float


def stated_limit() -> int:
    """Maximum size of the cache in bytes, from the environment or by default.

    Raises:
        PlanError: The variable is not a valid size.
    """
    text = os.environ.get(VARIABLE) or str(DEFAULT_GIB)
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise PlanError(
            f"{VARIABLE} is {text!r:.40}; expected the size of the engine cache in GiB, such as 8"
        )
    return int(size * 2**30)


def evict(folder: Path, max_bytes: int) -> None:
    """Remove entries, least recently used first, until the folder is at most ``max_bytes``.

    An entry that is locked or was used in the last hour stays, so the folder may be larger for a
    while. Several processes may evict at once: each entry is removed under its own lock, and only
    if it was not used since it was selected.
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
    """Remove an entry unless it is in use; return whether it was removed."""
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
    """Entries by the stem of their files, including unfinished files of killed processes."""
    files_of: defaultdict[str, list[tuple[Path, os.stat_result]]] = defaultdict(list)
    with os.scandir(folder) as items:
        for item in items:
            match = _CACHE_FILE.fullmatch(item.name)
            if match is not None and item.is_file(follow_symlinks=False):
                # Another process may remove it at the same time.
                with suppress(FileNotFoundError):
                    about = item.stat()
                    files_of[match["stem"]].append((Path(item.path), about))
    return {
        stem: _Entry(
            files=tuple(path for path, _ in files),
            size=sum(about.st_size for _, about in files),
            used=max(about.st_mtime for _, about in files),
        )
        for stem, files in files_of.items()
    }
