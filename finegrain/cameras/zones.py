"""Zones, lines and masks, as shares of the width and height of the picture.

Shares stay right if the camera changes its resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from finegrain import times
from finegrain.records import Scalar


class Point(NamedTuple):
    """A place in a picture: 0 is the left or upper edge, and 1 the right or lower edge."""

    x: float
    y: float


Polygon = tuple[Point, ...]


class Line(NamedTuple):
    """A line to cross. From ``begin``, looking to ``end``, the left side is ``in``."""

    begin: Point
    end: Point


def is_inside(point: Point, polygon: Polygon) -> bool:
    """Whether a point is inside a polygon, by the number of edges to its right.

    >>> is_inside(Point(0.5, 0.2), (Point(0, 0), Point(1, 0), Point(1, 1)))
    True
    """
    inside = False
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (a.y > point.y) != (b.y > point.y):
            x = a.x + (point.y - a.y) / (b.y - a.y) * (b.x - a.x)
            inside ^= point.x < x
    return inside


def crossing(line: Line, before: Point, after: Point) -> str | None:
    """``in`` or ``out`` if a step crosses a line, otherwise None.

    >>> door = Line(Point(0, 0.5), Point(1, 0.5))
    >>> crossing(door, Point(0.5, 0.6), Point(0.5, 0.4)), crossing(door, Point(0, 0), Point(1, 0))
    ('in', None)
    """
    sides = [_side(line.begin, line.end, point) for point in (before, after)]
    ends = [_side(before, after, point) for point in line]
    if (sides[0] > 0) == (sides[1] > 0) or (ends[0] > 0) == (ends[1] > 0):
        return None
    return "in" if sides[0] > 0 else "out"  # a point on the line is on its left side


def _side(begin: Point, end: Point, point: Point) -> float:
    """Below 0 on the left of a directed line, since y grows downwards."""
    return (end.x - begin.x) * (point.y - begin.y) - (end.y - begin.y) * (point.x - begin.x)


@dataclass(slots=True)
class Path:
    """The places of the feet of one track."""

    steps: list[tuple[datetime, Point]] = field(default_factory=list)

    def columns(self, zones: Mapping[str, Polygon], lines: Mapping[str, Line]) -> dict[str, Scalar]:
        """Columns of a track: when it was first and last in each zone, and crossed each line."""
        columns: dict[str, Scalar] = {}
        for name, polygon in zones.items():
            inside = [time for time, point in self.steps if is_inside(point, polygon)]
            if inside:
                columns[f"entered_{name}"] = times.utc_text(inside[0])
                columns[f"left_{name}"] = times.utc_text(inside[-1])
        for name, line in lines.items():
            for way, time in _crossings(line, self.steps):
                columns[f"crossed_{name}"] = way
                columns[f"crossed_{name}_at"] = times.utc_text(time)
        return columns


def _crossings(line: Line, steps: Sequence[tuple[datetime, Point]]) -> list[tuple[str, datetime]]:
    pairs = pairwise(steps)
    ways = [(crossing(line, before, after), time) for (_, before), (time, after) in pairs]
    return [(way, time) for way, time in ways if way is not None]
