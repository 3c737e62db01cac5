"""Stamps of files, to detect whether a picture has changed since it was encoded."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from finegrain.gallery.row import Row, Stamp
from finegrain.preprocess import Crop

_DIGEST_BYTES = 16


def file_of(image: str) -> Path:
    """The file that holds a picture; for a crop or a frame, the file it is cut from."""
    crop = Crop.of(image)
    return Path(image if crop is None else crop.path)


def is_there(image: str) -> bool:
    """Whether the file of a picture still exists."""
    return os.path.lexists(file_of(image))


def stamp_of(image: str) -> Stamp | None:
    """Size, time and digest of a picture's file; None if it cannot be read.

    A video has no digest, because reading it would take too long.
    """
    crop = Crop.of(image)
    path = file_of(image)
    try:
        about = path.stat()
        is_frame = crop is not None and crop.time is not None
        digest = None if is_frame else _digest(path)
    except OSError:
        return None
    return Stamp(size=about.st_size, mtime=about.st_mtime_ns, digest=digest)


def has_changed(row: Row) -> bool:
    """Whether the file of a picture has changed since it was encoded; False if it is gone.

    A file with the same size and time is unchanged. Otherwise the digests are compared. A row
    that an older version wrote has no stamp; its file has changed if it was written after the
    picture was added.
    """
    if row.image is None:
        return False
    try:
        about = file_of(row.image).stat()
    except OSError:
        return False
    if row.stamp is None:
        written = datetime.fromtimestamp(about.st_mtime, UTC)
        return written > datetime.fromisoformat(row.added_at)
    if (about.st_size, about.st_mtime_ns) == (row.stamp.size, row.stamp.mtime):
        return False
    now = stamp_of(row.image)
    return now is not None and (now.digest is None or now.digest != row.stamp.digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ).hexdigest()
