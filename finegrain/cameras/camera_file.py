"""Reads a YAML file that lists cameras.

::

    cameras:
      - name: gate-3
        source: rtsp://user:password@10.0.0.5/live
        hours: ["mon-fri 07:00-19:00"]
        timezone: Europe/Berlin
        expire_days: 30
        blur: true
        zones: {door: [[0.4, 0.5], [0.6, 0.5], [0.6, 1.0], [0.4, 1.0]]}
        lines: {entrance: [[0.4, 0.9], [0.6, 0.9]]}
        masks: [[[0.0, 0.0], [0.2, 0.0], [0.2, 0.3], [0.0, 0.3]]]

Places are shares of the width and height of the picture.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from finegrain.cameras.address import Address
from finegrain.cameras.camera import Camera
from finegrain.cameras.hours import Hours
from finegrain.cameras.zones import Line, Point, Polygon
from finegrain.errors import CameraError, GalleryError, did_you_mean, require
from finegrain.gallery.entries import checked_retention

_MAX_DEPTH = 7
_FIELDS = (
    "name", "source", "start", "hours", "timezone", "expire_days", "blur", "zones", "lines",
    "masks",
)  # fmt: skip
T = TypeVar("T")

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def read_camera_file(path: Path) -> list[Camera]:
    """Read the cameras of a YAML file.

    Raises:
        CameraError: The file cannot be read, or a name or value in it is invalid.
        MissingExtraError: PyYAML is not installed.
    """
    require("yaml", "cameras")
    from finegrain.bounded.plain_yaml import read_plain_yaml

    values = read_plain_yaml(path, CameraError, max_depth=_MAX_DEPTH)
    _refuse_unknown(values, ("cameras",), str(path))
    listed = values.get("cameras")
    if not isinstance(listed, list) or not listed:
        raise CameraError(f"{path}: expected cameras as a list, got {reprlib.repr(listed)}")
    return [
        _camera(entry, f"{path}: camera {number}", path.parent)
        for number, entry in enumerate(listed, start=1)
    ]


def _camera(entry: Any, place: str, folder: Path) -> Camera:
    if not isinstance(entry, dict):
        raise CameraError(f"{place}: expected named values such as name and source")
    _refuse_unknown(entry, _FIELDS, place)
    name, source = entry.get("name"), entry.get("source")
    if not isinstance(name, str) or not name.strip():
        raise CameraError(f"{place}: expected name as a text, got {name!r:.60}")
    place = f"{place} ({name:.60})"
    if not isinstance(source, str) or not source:
        raise CameraError(f"{place}: expected source as an address or a path")
    if "://" not in source:
        source = str(folder / source)  # paths are relative to the file; absolute ones stay
    try:
        return Camera(
            name=name,
            address=Address.of(source),
            start=_start(entry.get("start")),
            zones=_named(entry.get("zones"), "zones", lambda value: _polygon(value, 3)),
            lines=_named(entry.get("lines"), "lines", _line),
            masks=tuple(_polygon(value, 3) for value in _list(entry.get("masks"), "masks")),
            hours=_hours(entry.get("hours"), entry.get("timezone")),
            expire_after=_retention(entry.get("expire_days")),
            blur=_truth(entry.get("blur")),
        )
    except (CameraError, GalleryError) as error:
        raise CameraError(f"{place}: {error}") from error


def _refuse_unknown(values: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
    for name in values:
        if name not in known:
            raise CameraError(
                f"{place}: expected {', '.join(known)}, got {name!r:.60}."
                f"{did_you_mean(str(name), known)}"
            )


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CameraError(f"expected {name} as a list, got {reprlib.repr(value)}")
    return value


def _named(value: Any, name: str, parse: Callable[[Any], T]) -> dict[str, T]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CameraError(f"expected {name} as names with places, got {reprlib.repr(value)}")
    for key in value:
        if not isinstance(key, str) or not _COLUMN.fullmatch(key):
            raise CameraError(
                f"expected names of {name} of letters, digits and underscores, which become names "
                f"of columns; got {key!r:.60}"
            )
    return {key: parse(places) for key, places in value.items()}


def _points(value: Any) -> tuple[Point, ...]:
    points = []
    for place in _list(value, "places"):
        is_pair = isinstance(place, list) and len(place) == 2
        if not is_pair or not all(
            isinstance(side, int | float) and not isinstance(side, bool) and 0 <= side <= 1
            for side in place
        ):
            raise CameraError(
                "expected places as [x, y], shares of the width and height from 0 to 1, got "
                f"{reprlib.repr(place)}"
            )
        points.append(Point(*map(float, place)))
    return tuple(points)


def _polygon(value: Any, least: int) -> Polygon:
    points = _points(value)
    if len(points) < least:
        raise CameraError(f"expected at least {least} places of an area, got {len(points)}")
    return points


def _line(value: Any) -> Line:
    points = _points(value)
    if len(points) != 2 or points[0] == points[1]:
        raise CameraError(f"expected a line as two different places, got {reprlib.repr(value)}")
    return Line(*points)


def _hours(value: Any, zone: Any) -> Hours | None:
    if value is None:
        if zone is not None:
            raise CameraError("timezone belongs to hours, which are missing")
        return None
    texts = [value] if isinstance(value, str) else _list(value, "hours")
    return Hours.of(texts, "UTC" if zone is None else str(zone))


def _retention(days: Any) -> timedelta | None:
    if days is None:
        return None
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 < days < math.inf:
        raise CameraError(f"expected expire_days as a number above 0, got {days!r:.60}")
    return checked_retention(timedelta(days=days))


def _start(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        start = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise CameraError(
            f"expected start in ISO 8601 such as 2026-05-01T08:00+02:00, got {value!r:.60}"
        ) from error
    return start if start.tzinfo is not None else start.replace(tzinfo=UTC)


def _truth(value: Any) -> bool:
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise CameraError(f"expected blur as true or false, got {value!r:.60}")
    return bool(value)
