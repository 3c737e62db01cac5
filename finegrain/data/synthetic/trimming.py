"""Draws the parts of a garment that have a colour of their own; sleeves are drawn with the arms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from finegrain.data.synthetic.body import Solid
from finegrain.data.synthetic.canvas import Shape
from finegrain.data.synthetic.figure import Figure
from finegrain.data.synthetic.shapes import Points, points

_HEM_HEIGHT = 0.036
_WAISTBAND_HEIGHT = 0.034
_CUFF = 0.11  # of the last piece of a leg
_PRINT_HEIGHT = 0.715
_PRINT_RADIUS = 0.043


def draw_trimming(figure: Figure, solid: Solid) -> None:
    """Hem, waistband and print of what is worn around the trunk."""
    if figure.trim.hem:
        low = float(solid.levels[:, 0].min())
        _draw_band(figure, solid, (low, low + _HEM_HEIGHT), figure.trim.hem)
    draw_waistband(figure, solid)
    if figure.trim.print and figure.trim.print_color:
        _draw_print(figure, solid, figure.trim.print, figure.trim.print_color)


def draw_leg_trimming(figure: Figure, leg: Points, radii: ArrayLike, *, outer: float) -> None:
    """Stripe and cuff of one trouser leg.

    Args:
        leg: Joints from hip to hem, in body units ``[n, 3]``.
        radii: Of the cloth at the joints.
        outer: Which side of the leg is the outer one, -1 or 1.
    """
    sizes = np.asarray(radii, np.float32)
    if figure.trim.stripes:
        out = sizes[:, None] * points((outer * 0.62, 0.0, 0.0))
        stripe = figure.limb(leg + out, sizes * 0.26, round_end=False)
        color = figure.cloth(figure.trim.stripes)
        figure.canvas.paint(Shape(stripe), color, relief=0.02, slot="lower")
    if figure.trim.hem:
        start = leg[-1] + (leg[0] - leg[-1]) * _CUFF
        cuff = figure.limb([start, leg[-1]], sizes[-1] * 1.06, round_end=False)[:1]
        figure.canvas.paint(Shape(cuff), figure.cloth(figure.trim.hem), relief=0.03, slot="lower")


def draw_waistband(figure: Figure, solid: Solid) -> None:
    """The upper edge of a lower garment."""
    if figure.trim.waistband:
        top = float(solid.levels[:, 0].max())
        _draw_band(figure, solid, (top - _WAISTBAND_HEIGHT, top), figure.trim.waistband)


def _draw_band(figure: Figure, solid: Solid, span: tuple[float, float], color: str) -> None:
    heights = np.linspace(*span, 4, dtype=np.float32)
    band = Solid(np.concatenate([heights[:, None], solid.at(heights)], axis=1).astype(np.float32))
    figure.canvas.paint(
        Shape([band.outline(figure.frame)]), figure.cloth(color), relief=0.03, slot="upper"
    )


def _draw_print(figure: Figure, solid: Solid, motif: str, color: str) -> None:
    for azimuth in (0.0, math.pi):
        if figure.frame.sees(azimuth):
            place = solid.surface(figure.frame, [(azimuth, _PRINT_HEIGHT)])[0]
            across = abs(figure.frame.turn[0])  # a turned body shows it narrower
            outline = _MOTIFS[motif]() * points((across, -1.0)) * figure.px(_PRINT_RADIUS)
            figure.canvas.paint(
                Shape([place + outline]), figure.cloth(color), relief=0.010, slot="upper"
            )


def _polygon(corners: int, *, inner: float = 1.0, turn: float = 0.0) -> Points:
    """A regular polygon around the origin, y up; every second corner at ``inner``."""
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
