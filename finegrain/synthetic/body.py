"""The body as solids with elliptic cross-sections, projected from any side.

Body units: the height of the person is 1. Axes are x to the person's left, y up from
the ground, z forward. One table is used for front, side and back views, because the
silhouette of an ellipse turned by the yaw is known in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finegrain.synthetic.shapes import Points, open_curve, points

# Levels of the trunk, from the neck to below the hips: height, half width, half depth,
# forward offset. An adult is about 7.5 heads tall.
_TRUNK: dict[str, Points] = {
    "man": points(
        (0.856, 0.030, 0.032, 0.000),
        (0.838, 0.048, 0.038, -0.002),
        (0.822, 0.082, 0.046, -0.004),
        (0.802, 0.112, 0.054, -0.002),
        (0.775, 0.124, 0.060, 0.002),
        (0.740, 0.116, 0.066, 0.006),
        (0.700, 0.107, 0.066, 0.008),
        (0.660, 0.098, 0.063, 0.006),
        (0.620, 0.092, 0.061, 0.004),
        (0.580, 0.094, 0.063, 0.000),
        (0.530, 0.098, 0.068, -0.006),
        (0.480, 0.098, 0.066, -0.006),
        (0.400, 0.094, 0.062, -0.002),
        (0.100, 0.090, 0.060, 0.000),
    ),
    "woman": points(
        (0.856, 0.025, 0.028, 0.000),
        (0.838, 0.040, 0.034, -0.002),
        (0.822, 0.070, 0.041, -0.004),
        (0.802, 0.096, 0.048, -0.002),
        (0.775, 0.106, 0.056, 0.004),
        (0.735, 0.101, 0.068, 0.012),
        (0.700, 0.093, 0.065, 0.011),
        (0.660, 0.080, 0.056, 0.006),
        (0.625, 0.074, 0.052, 0.004),
        (0.585, 0.084, 0.057, -0.001),
        (0.530, 0.103, 0.072, -0.009),
        (0.480, 0.104, 0.069, -0.008),
        (0.400, 0.100, 0.064, -0.004),
        (0.100, 0.096, 0.062, 0.000),
    ),
}

_HEAD = points(
    (0.866, 0.016, 0.016, 0.030),
    (0.874, 0.027, 0.030, 0.018),
    (0.890, 0.036, 0.042, 0.010),
    (0.912, 0.043, 0.051, 0.003),
    (0.938, 0.047, 0.057, 0.000),
    (0.964, 0.045, 0.056, -0.002),
    (0.984, 0.035, 0.045, -0.003),
    (0.996, 0.020, 0.026, -0.003),
    (1.000, 0.002, 0.003, -0.003),
)


_SWEEP = np.linspace(0.0, np.pi, 9, dtype=np.float32)[1:-1]
_RIM_COS = np.cos(_SWEEP)
_RIM_SIN = np.sin(_SWEEP)
_HALF_TURN = np.linspace(-0.5, 0.5, 9) * np.pi

Lengths = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Frame:
    """Projection of body units to pixels, for a rotated body and a camera that looks down.

    Attributes:
        turn: Cosine and sine of the yaw.
        tilt: Cosine and sine of the pitch.
        unit: Pixels per body unit.
        x: Column of the body's axis.
        ground: Row of the ground under it.
    """

    turn: tuple[float, float]
    tilt: tuple[float, float]
    unit: float
    x: float
    ground: float

    def depth(self, place: Points) -> NDArray[np.float32]:
        """Distance of each point towards the camera, in body units."""
        return np.asarray(place[..., 2] * self.turn[0] - place[..., 0] * self.turn[1])

    def project(self, place: Points) -> Points:
        """Pixels ``[n, 2]`` of body points ``[n, 3]``."""
        across = place[..., 0] * self.turn[0] + place[..., 2] * self.turn[1]
        rise = place[..., 1] * self.tilt[0] - self.depth(place) * self.tilt[1]
        return self.at(across, rise)

    def at(self, across: Lengths, rise: Lengths) -> Points:
        """Pixels of positions on the picture plane in body units, two arrays of the same shape."""
        place = np.empty((*across.shape, 2), np.float32)
        place[..., 0] = self.x + across * self.unit
        place[..., 1] = self.ground - rise * self.unit
        return place

    def sees(self, azimuth: float) -> bool:
        """Whether the body's surface at this azimuth (0 is its front) faces the camera."""
        return float(np.cos(azimuth) * self.turn[0] - np.sin(azimuth) * self.turn[1]) > 0.05


@dataclass(frozen=True, slots=True)
class Solid:
    """A stack of horizontal ellipses.

    Attributes:
        levels: float32 [n, 4], from top to bottom or bottom to top: height, half width,
            half depth, forward offset.
    """

    levels: Points

    def outline(self, frame: Frame) -> Points:
        """Silhouette with a rounded lower edge, [m, 2] pixels."""
        height, wide, deep, forward = self.levels.T
        cos, sin = frame.turn
        half = np.sqrt((wide * cos) ** 2 + (deep * sin) ** 2)
        middle = forward * sin
        rise = height * frame.tilt[0] - forward * cos * frame.tilt[1]
        low = int(np.argmin(height))
        reach = np.sqrt((wide[low] * sin) ** 2 + (deep[low] * cos) ** 2)
        rim_x = middle[low] - half[low] * _RIM_COS
        rim_y = rise[low] - reach * _RIM_SIN * frame.tilt[1]
        order = slice(None) if low else slice(None, None, -1)
        x = np.concatenate([(middle - half)[order], rim_x, (middle + half)[order][::-1]])
        y = np.concatenate([rise[order], rim_y, rise[order][::-1]])
        return frame.at(x, y)

    def band(self, frame: Frame, height: float) -> Points:
        """Pixels along the visible half of the surface at one height."""
        yaw = np.arctan2(frame.turn[1], frame.turn[0])
        azimuth = _HALF_TURN - yaw
        return self.surface(frame, np.stack([azimuth, np.full(9, height)], axis=1))

    def at(self, height: ArrayLike) -> Points:
        """Half width, half depth and forward offset at given heights, ``[n, 3]``."""
        levels = self.levels if self.levels[0, 0] < self.levels[-1, 0] else self.levels[::-1]
        # `np.interp` computes in float64, so the rows are converted once for all three.
        knots, *rows = np.ascontiguousarray(levels.T, np.float64)
        heights = np.atleast_1d(np.asarray(height, np.float32))
        section = np.empty((len(heights), 3), np.float32)
        for column, row in enumerate(rows):
            section[:, column] = np.interp(heights, knots, row)
        return section

    def surface(self, frame: Frame, path: ArrayLike) -> Points:
        """Pixels of surface points given as (azimuth, height) rows.

        Points on the far side are moved along the surface to the silhouette, so that a
        patch that goes around the body ends at its edge.
        """
        azimuth, height = np.asarray(path, np.float32).T
        yaw = np.arctan2(frame.turn[1], frame.turn[0])
        # Azimuth counts from the front towards the person's left; the camera is at -yaw.
        # The path is unwrapped as one curve: its hidden points belong to the nearer edge.
        seen = azimuth + yaw
        seen -= 2.0 * np.pi * round(float(seen.sum()) / len(seen) / (2.0 * np.pi))
        azimuth = np.minimum(np.maximum(seen, -0.5 * np.pi), 0.5 * np.pi) - yaw
        wide, deep, forward = self.at(height).T
        place = np.empty((len(height), 3), azimuth.dtype)
        place[:, 0] = wide * np.sin(azimuth)
        place[:, 1] = height
        place[:, 2] = deep * np.cos(azimuth) + forward
        return frame.project(place)


def head_solid() -> Solid:
    """Skull and jaw."""
    return Solid(open_curve(_HEAD, 3))


def trunk(gender: str, build: float) -> Solid:
    """The trunk of a woman or a man."""
    levels = _TRUNK[gender].copy()
    levels[:, 1:3] *= build
    return Solid(levels)


def draped(body: Solid, *, top: float, hem: float, ease: ArrayLike, stride: float = 0.0) -> Solid:
    """A garment around the trunk.

    Args:
        top: Height of its upper edge.
        hem: Height of its lower edge.
        ease: Rows of (height, distance of the cloth from the body).
        stride: Step length, which widens a long hem in front and behind.
    """
    inner = body.levels[(body.levels[:, 0] < top - 0.01) & (body.levels[:, 0] > hem + 0.015), 0]
    height = np.concatenate([[top], inner, [hem]]).astype(np.float32)
    fit = body.at(height)
    knots = np.asarray(sorted(np.asarray(ease, np.float32).tolist()), np.float32)
    off = np.interp(height, knots[:, 0], knots[:, 1])
    push = np.maximum(0.50 - height, 0.0) * stride
    levels = np.stack(
        [height, fit[:, 0] + off + 0.12 * push, fit[:, 1] + off + push, fit[:, 2]], axis=1
    )
    return Solid(open_curve(levels.astype(np.float32), 3))
