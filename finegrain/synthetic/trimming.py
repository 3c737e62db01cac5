"""Draws the parts of a garment that have another colour; sleeves are drawn with the arms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from finegrain.synthetic.body import Solid
from finegrain.synthetic.canvas import Shape
from finegrain.synthetic.figure import Figure
from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import Points, points
from finegrain.synthetic.trim import Trim

_HEM_HEIGHT = 0.036
_CUFF = 0.11  # of the last piece of a leg
_PRINT_HEIGHT = {"upper": 0.715, "lower": 0.430}
_KNEE = (0.44, 0.60)
_PRINT_RADIUS = 0.043


def draw_trimming(figure: Figure, solid: Solid, trim: Trim) -> None:
    """Hem and print of a garment around the trunk."""
    if trim.hem:
        _draw_hem(figure, solid, figure.cloth(trim.hem), trim.slot)
    if trim.print:
        _draw_print(figure, solid, trim)


def draw_leg_trimming(
    figure: Figure, leg: Points, radii: ArrayLike, trim: Trim, *, outer: float
) -> None:
    """Stripe, knee and cuff of one trouser leg.

    Args:
        leg: Joints from hip to hem, in body units ``[n, 3]``.
        radii: Radii of the cloth at the joints.
        outer: The outer side of the leg, -1 or 1.
    """
    sizes = np.asarray(radii, np.float32)
    if trim.stripes:
        out = sizes[:, None] * points((outer * 0.62, 0.0, 0.0))
        stripe = figure.limb(leg + out, sizes * 0.26, round_end=False)
        color = figure.cloth(trim.stripes)
        figure.canvas.paint(Shape(stripe), color, relief=0.02, slot="lower")
    if trim.knees:
        at = np.linspace(0.0, 1.0, len(leg))
        patch = np.stack([np.interp(_KNEE, at, leg[:, axis]) for axis in range(3)], axis=1)
        knee = figure.limb(patch, np.interp(_KNEE, at, sizes) * 0.8, round_end=False)[:1]
        figure.canvas.paint(Shape(knee), figure.cloth(trim.knees), relief=0.02, slot="lower")
    if trim.hem:
        start = leg[-1] + (leg[0] - leg[-1]) * _CUFF
        cuff = figure.limb([start, leg[-1]], sizes[-1] * 1.06, round_end=False)[:1]
        figure.canvas.paint(Shape(cuff), figure.cloth(trim.hem), relief=0.03, slot="lower")


def _draw_hem(figure: Figure, solid: Solid, color: RGB, slot: str) -> None:
    low = float(solid.levels[:, 0].min())
    heights = np.linspace(low, low + _HEM_HEIGHT, 4, dtype=np.float32)
    band = Solid(np.concatenate([heights[:, None], solid.at(heights)], axis=1).astype(np.float32))
    figure.canvas.paint(Shape([band.outline(figure.frame)]), color, relief=0.03, slot=slot)


def _draw_print(figure: Figure, solid: Solid, trim: Trim) -> None:
    assert trim.print is not None
    assert trim.print_color is not None
    for azimuth in (0.0, math.pi):
        if figure.frame.sees(azimuth):
            place = solid.surface(figure.frame, [(azimuth, _PRINT_HEIGHT[trim.slot])])[0]
            across = abs(figure.frame.turn[0])  # it is narrower on a rotated body
            outline = _MOTIFS[trim.print]() * points((across, -1.0)) * figure.px(_PRINT_RADIUS)
            color = figure.cloth(trim.print_color)
            figure.canvas.paint(Shape([place + outline]), color, relief=0.010, slot=trim.slot)


def _polygon(corners: int, *, inner: float = 1.0, turn: float = 0.0) -> Points:
    """A regular polygon around the origin, y up; every second corner has the radius ``inner``."""
    angle = np.arange(corners) * 2.0 * np.pi / corners + np.pi / 2.0 + turn
    reach = np.where(np.arange(corners) % 2, inner, 1.0)[:, None]
    return np.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach, np.float32)


def _heart() -> Points:
    t = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    x = 16.0 * np.sin(t) ** 3
    y = 13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t)
    return np.asarray(np.stack([x, y], axis=1) / 16.0, np.float32)


_MOTIFS: dict[str, Callable[[], Points]] = {
    "circle": lambda: _polygon(24) * np.float32(0.95),
    "square": lambda: _polygon(4, turn=np.pi / 4.0) * np.float32(1.15),
    "triangle": lambda: _polygon(3) * np.float32(1.25),
    "star": lambda: _polygon(10, inner=0.42) * np.float32(1.3),
    "heart": _heart,
}
