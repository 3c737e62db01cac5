"""What a gallery tells of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.records import Pid, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a picture's file was like when it was encoded; it tells whether the file has changed.

    Attributes:
        size: In bytes.
        mtime: When it was last written, in nanoseconds since 1970.
        digest: BLAKE2b of its content, 32 hexadecimal digits; None for a video.
    """

    size: int
    mtime: int
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture of a gallery, without its vector.

    Times are UTC, as ``2026-01-31T12:00:00.000Z``.

    Attributes:
        id: Never given to another picture, even after a deletion.
        image: Path of the picture, or None when it came as pixels.
        pid: Key of the person or product as it was given, where known.
        camera: Name of the camera, where known.
        time: When it was taken, where known.
        track: Name of the track that it is part of, where known.
        metadata: Further columns, in alphabetical order.
        added_at: When it was added.
        expires_at: When it leaves the gallery by itself, or None for never.
        source: The folder or table that it came from, where known.
        stamp: Of its file, where it has one; None of pictures added by older versions.
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
    """Where a picture with a path came from, to compare many with a disk."""

    id: int
    image: str
    source: str | None
    size: int | None
    digest: str | None


def value_of(row: Row, column: str) -> Scalar:
    """What a row has in a column of a filter, built in or of its metadata."""
    if column in BUILT_IN:
        value: Scalar = getattr(row, column)
        return value
    return row.metadata.get(column)
