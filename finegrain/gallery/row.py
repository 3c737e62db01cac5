"""Records of one picture: its columns before and after it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finegrain.gallery.filters.conditions import BUILT_IN, Condition, column_names, evaluate
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
class Entry:
    """The columns of one picture, without its vector.

    Times are text in UTC, such as ``2026-01-31T12:00:00.000Z``. None means unknown.

    Attributes:
        image: Path of the picture, or None if it was added as pixels.
        pid: Key of the person or product, as the caller passed it.
        camera: Name of the camera.
        time: When the picture was taken.
        track: Name of the track that the picture belongs to.
        metadata: Further columns.
        expires_at: When the picture expires, or None for never.
        source: Folder or table that the picture came from.
        stamp: State of the picture's file; None without a file and for pictures that an older
            version added.
        thumbnail: JPEG file to store. It is None in a row that was read, since
            :meth:`~finegrain.gallery.Gallery.thumbnails` reads these files.
        bias: Number that is added to the inner product. It is 0 in a row that was read, since
            :meth:`~finegrain.gallery.Gallery.biases` reads these numbers.
    """

    image: str | None
    pid: Pid | None
    camera: str | None
    time: str | None
    track: str | None
    metadata: Mapping[str, Scalar]
    expires_at: str | None = None
    source: str | None = None
    stamp: Stamp | None = None
    thumbnail: bytes | None = None
    bias: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Entry):
    """An :class:`Entry` that a gallery stores. Its metadata is in alphabetical order.

    Attributes:
        id: Id of the picture; never reused, even after a deletion.
        added_at: When the picture was added.
    """

    id: int
    added_at: str


@dataclass(frozen=True, slots=True)
class Place:
    """Origin of a picture that has a path; used to compare many pictures with the disk."""

    id: int
    image: str
    source: str | None
    size: int | None
    digest: str | None


def meets(row: Row, condition: Condition) -> bool:
    """Whether a row matches a filter."""
    return evaluate(condition, {name: value_of(row, name) for name in column_names(condition)})


def value_of(row: Row, column: str) -> Scalar:
    """Value of a row in a built-in column or a column of its metadata."""
    if column in BUILT_IN:
        value: Scalar = getattr(row, column)
        return value
    return row.metadata.get(column)
