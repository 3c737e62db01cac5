"""One camera and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from finegrain.cameras.address import Address
from finegrain.cameras.hours import Hours
from finegrain.cameras.zones import Line, Polygon


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A camera to watch.

    Attributes:
        name: Stored as the column ``camera``, and the first part of the names of its tracks.
        address: Where its pictures come from.
        start: Time of the first frame of a file. By default the file states it, or it is the time
            of the last change of the file minus its duration.
        zones: Areas by name; a track is stored with those that its feet were in.
        lines: Lines by name; a track is stored with those that its feet crossed.
        masks: Areas where nobody is kept.
        hours: When the camera is watched; None for always.
        expire_after: How long its pictures are kept; None for the default of the call.
        blur: Blur the stored thumbnails.
    """

    name: str
    address: Address
    start: datetime | None = None
    zones: Mapping[str, Polygon] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    masks: tuple[Polygon, ...] = ()
    hours: Hours | None = None
    expire_after: timedelta | None = None
    blur: bool = False
