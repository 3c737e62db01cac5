"""Outlines as arrays of points: smooth closed curves, tapered limbs and hulls."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float32]
"""Positions, float32 [n, 2] in pixels or [n, 3] in body units."""

_TURN = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1).astype(np.float32)
_QUARTER_TURN = np.asarray([-1.0, 1.0], np.float32)
"""Signs that rotate a vector with exchanged coordinates by 90 degrees."""


def points(*rows: ArrayLike) -> Points:
    """Rows of coordinates as one float32 array."""
    return np.asarray(rows, dtype=np.float32)


def disc(center: ArrayLike, radius: float | tuple[float, float]) -> Points:
    """A circle or an upright ellipse as 16 points."""
    return np.asarray(np.asarray(center) + _CIRCLE * np.asarray(radius), np.float32)


def hull(cloud: Points) -> Points:
    """Convex hull of 2-D points."""
    return np.asarray(cv2.convexHull(np.ascontiguousarray(cloud))[:, 0], np.float32)


def blob(centers: Points, radii: ArrayLike) -> Points:
    """Convex hull of circles: the silhouette of a rounded body."""
    sizes = np.broadcast_to(np.asarray(radii, np.float32), (len(centers),))
    cloud = centers[:, None] + _CIRCLE[None] * sizes[:, None, None]
    return hull(cloud.reshape(-1, 2))


def ribbon(line: Points, radii: ArrayLike, *, round_end: bool = True) -> list[Points]:
    """A tapered stroke along a polyline, as convex pieces.

    Their union is the stroke. A single outline would have holes where a limb is folded over itself.
    """
    sizes = np.broadcast_to(np.asarray(radii, np.float32), (len(line),))[:, None]
    steps = line[1:] - line[:-1]
    lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-3)[:, None]
    normals = steps[:, ::-1] * _QUARTER_TURN / lengths
    start, end = normals * sizes[:-1], normals * sizes[1:]
    quads = np.stack(
        [line[:-1] + start, line[1:] + end, line[1:] - end, line[:-1] - start], axis=1
    ).astype(np.float32)
    last = len(line) if round_end else len(line) - 1
    # In float64 as in `disc`, so that both round to the same pixels.
    discs = line[:last, None] + _CIRCLE * sizes[:last, None].astype(np.float64)
    return [*quads, *discs.astype(np.float32)]


@lru_cache(maxsize=64)
def _closed_spline(count: int, samples: int) -> NDArray[np.float32]:
    return _spline_weights(count, samples, closed=True)


@lru_cache(maxsize=64)
def _open_spline(count: int, samples: int) -> NDArray[np.float32]:
    return _spline_weights(count, samples, closed=False)


def _spline_weights(count: int, samples: int, *, closed: bool) -> NDArray[np.float32]:
    """Catmull-Rom basis [m, count]: curve = weights @ control points."""
    spans = count if closed else count - 1
    position = np.arange(spans * samples + (0 if closed else 1)) / samples
    start = np.minimum(position.astype(int), spans - 1)
    t = position - start
    basis = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1.0 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2.0 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    weights = np.zeros((len(position), count), np.float32)
    for offset, values in enumerate(basis, start=-1):
        index = start + offset
        index = index % count if closed else np.clip(index, 0, count - 1)
        np.add.at(weights, (np.arange(len(position)), index), values.astype(np.float32))
    return weights


def closed_curve(control: Points, samples: int = 4) -> Points:
    """A smooth closed curve through the control points."""
    return _closed_spline(len(control), samples) @ control


def open_curve(control: Points, samples: int = 4) -> Points:
    """A smooth curve from the first control point to the last."""
    return _open_spline(len(control), samples) @ control
