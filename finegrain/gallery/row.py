"""Records that a gallery returns for one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.records import Pid, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """State of a picture's file when it was encoded, to detect later changes.

    Attributes:
        size: Size in bytes.
        mtime: Time of the last change, in nanoseconds since 1970.
        digest: BLAKE2b of the content, 32 hexadecimal digits; None for a video.
    """

    size: int
    mtime: int
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture of a gallery, without its vector.

    Times are text in UTC, such as ``2026-01-31T12:00:00.000Z``. None means unknown.

    Attributes:
        id: Id of the picture; never reused, even after a deletion.
        image: Path of the picture, or None if it was added as pixels.
        pid: Key of the person or product, as the caller passed it.
        camera: Name of the camera.
        time: When the picture was taken.
        track: Name of the track that the picture belongs to.
        metadata: Further columns, in alphabetical order.
        added_at: When the picture was added.
        expires_at: When the picture expires, or None for never.
        source: Folder or table that the picture came from.
        stamp: State of the picture's file; None without a file and for pictures that an older
            version added.
    """

    id: int
    image: str | None
    pid: Pid | None
    camera: str | None
    time: str | None
    track: str | None
    metadata: Mapping[str, Scalar]
    added_at: str
    expires_at: str | None
    source: str | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Origin of a picture that has a path; used to compare many pictures with the disk."""

    id: int
    image: str
    source: str | None
    size: int | None
    digest: str | None


def value_of(row: Row, column: str) -> Scalar:
    """Value of a row in a built-in column or a column of its metadata."""
    if column in BUILT_IN:
        value: Scalar = getattr(row, column)
        return value
    return row.metadata.get(column)
