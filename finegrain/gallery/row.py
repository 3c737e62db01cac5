"""What a gallery tells of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finegrain.records import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture of a gallery, without its vector.

    Times are UTC, as ``2026-01-31T12:00:00.000Z``.

    Attributes:
        id: Never given to another picture, even after a deletion.
        image: Path of the picture, or None when it came as pixels.
        pid: Identity, where known.
        camera: Name of the camera, where known.
        time: When it was taken, where known.
        track: Name of the track that it is part of, where known.
        metadata: Further columns, in alphabetical order.
        added_at: When it was added.
        expires_at: When it leaves the gallery by itself, or None for never.
    """

    id: int
    image: str | None
    pid: int | None
    camera: str | None
    time: str | None
    track: str | None
    metadata: Mapping[str, Scalar]
    added_at: str
    expires_at: str | None
