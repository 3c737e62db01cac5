"""Details of upper garments: collars, zips, buttons, pockets and belts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from finegrain.synthetic.body import Solid
from finegrain.synthetic.canvas import Shape
from finegrain.synthetic.figure import Figure, shaded
from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import closed_curve, disc

_INNER: dict[str, RGB] = {"light": (226, 226, 222), "dark": (58, 60, 66)}


def inner_color(figure: Figure) -> RGB:
    """The colour under a coat: light under dark, and dark under light."""
    bright = sum(figure.cloth(figure.person.upper_color)) > 420
    return _INNER["dark" if bright else "light"]


def draw_details(figure: Figure, solid: Solid) -> None:
    """Necklines, collars, zips, buttons, pockets and belts of an upper garment."""
    color = figure.cloth(figure.person.upper_color)
    _DETAILS[figure.person.upper](figure, solid, color)
    if figure.person.belt:
        _draw_belt(figure, solid, color)


def _neckline(figure: Figure, solid: Solid, low: float, wide: float) -> None:
    """Bare skin in a round neck, seen from the front."""
    rows = [(-wide, 0.845), (-0.6 * wide, low + 0.006), (0.0, low), (0.6 * wide, low + 0.006)]
    patch = solid.surface(figure.frame, [*rows, (wide, 0.845), (0.0, 0.856)])
    if figure.ghost:
        lining = shaded(figure.cloth(figure.person.upper_color), 0.55)
        figure.canvas.paint(Shape([closed_curve(patch)]), lining, relief=0.02, slot="lining")
    else:
        figure.paint_skin([closed_curve(patch)], relief=0.02)


def _seam(
    figure: Figure, solid: Solid, rows: list[tuple[float, float]], color: RGB, alpha: float = 0.8
) -> None:
    figure.canvas.line(solid.surface(figure.frame, rows), color, figure.px(0.007), alpha=alpha)


def _collar(figure: Figure, solid: Solid, color: RGB, *, drop: float, wide: float) -> None:
    """Two collar points or lapels, from the neck down to ``drop``."""
    for sign in (-1.0, 1.0):
        if not figure.frame.sees(sign * 0.30):
            continue
        rows = [
            (sign * 1.2, 0.862),
            (sign * (wide + 0.55), 0.835),
            (sign * (wide + 0.25), drop + 0.030),
            (sign * 0.08, drop),
            (sign * 0.30, 0.835),
        ]
        flap = solid.surface(figure.frame, rows)
        figure.canvas.paint(Shape([flap]), shaded(color, 1.06), relief=0.016, slot="upper")


def _detail_coat(figure: Figure, solid: Solid, color: RGB) -> None:
    line = shaded(color, 0.55)
    hem = float(solid.levels[:, 0].min())
    if figure.frame.sees(math.pi):
        _seam(figure, solid, [(math.pi, 0.47), (math.pi, hem)], line)
    if not figure.frame.sees(0.0):
        return
    if not figure.person.upper_open:
        _neckline_v(figure, solid)
        _seam(figure, solid, [(0.10, 0.73), (0.12, hem - 0.005)], line)
        for height in (0.70, 0.63, 0.56, 0.49):
            for azimuth in (-0.10, 0.32) if figure.person.gender == "woman" else (0.02,):
                spot = solid.surface(figure.frame, [(azimuth, height)])[0]
                figure.canvas.flat(disc(spot, figure.px(0.0085)), shaded(color, 0.45))
    _collar(figure, solid, color, drop=0.735, wide=0.35)
    _pockets(figure, solid, line, 0.545)


def _neckline_v(figure: Figure, solid: Solid) -> None:
    """A dark or light wedge between lapels."""
    patch = solid.surface(figure.frame, [(-0.45, 0.852), (0.0, 0.735), (0.45, 0.852)])
    color = inner_color(figure)
    figure.canvas.paint(Shape([patch]), color, relief=0.02, slot="inner")


def _pockets(figure: Figure, solid: Solid, line: RGB, height: float) -> None:
    for sign in (-1.0, 1.0):
        if figure.frame.sees(sign * 0.75):
            rows = [(sign * 0.95, height + 0.035), (sign * 0.70, height - 0.015)]
            _seam(figure, solid, rows, line)


def _detail_jacket(figure: Figure, solid: Solid, color: RGB) -> None:
    line = shaded(color, 0.5)
    figure.canvas.line(solid.band(figure.frame, 0.520), line, figure.px(0.007), alpha=0.6)
    if not figure.frame.sees(0.0):
        return
    if not figure.person.upper_open:
        zipper = (150, 150, 152) if sum(color) < 560 else (96, 96, 100)
        _seam(figure, solid, [(0.0, 0.850), (0.0, 0.70), (0.0, 0.51)], zipper, alpha=0.95)
    for sign in (-1.0, 1.0):
        if figure.frame.sees(sign * 0.5):
            rows = [
                (sign * 1.1, 0.872),
                (sign * 0.95, 0.840),
                (sign * 0.10, 0.822),
                (sign * 0.12, 0.866),
            ]
            flap = solid.surface(figure.frame, rows)
            figure.canvas.paint(Shape([flap]), shaded(color, 0.92), relief=0.016, slot="upper")
    _pockets(figure, solid, line, 0.575)


def _detail_hoodie(figure: Figure, solid: Solid, color: RGB) -> None:
    line = shaded(color, 0.55)
    if figure.frame.sees(0.0):
        rows = [
            (-0.62, 0.530),
            (-0.58, 0.565),
            (-0.34, 0.615),
            (0.34, 0.615),
            (0.58, 0.565),
            (0.62, 0.530),
        ]
        pocket = solid.surface(figure.frame, rows)
        figure.canvas.paint(Shape([pocket]), shaded(color, 0.93), relief=0.012, slot="upper")
        _seam(figure, solid, rows[:3], line)
        _seam(figure, solid, rows[3:], line)
        for azimuth in (-0.16, 0.16):
            cord = (240, 240, 238) if sum(color) < 600 else (90, 90, 94)
            _seam(figure, solid, [(azimuth, 0.828), (azimuth * 1.2, 0.755)], cord)


def _detail_shirt(figure: Figure, solid: Solid, color: RGB) -> None:
    if not figure.frame.sees(0.0):
        return
    line = shaded(color, 0.72)
    _neckline(figure, solid, 0.815, 0.30)
    _seam(figure, solid, [(0.05, 0.815), (0.05, 0.486)], line)
    for height in np.arange(0.78, 0.50, -0.055):
        spot = solid.surface(figure.frame, [(0.0, height)])[0]
        button = shaded(color, 0.5) if sum(color) > 330 else (205, 205, 200)
        figure.canvas.flat(disc(spot, figure.px(0.0055)), button)
    _collar(figure, solid, color, drop=0.808, wide=0.20)


def _detail_tshirt(figure: Figure, solid: Solid, color: RGB) -> None:
    if figure.frame.sees(0.0):
        _neckline(figure, solid, 0.812, 0.62)


def _detail_dress(figure: Figure, solid: Solid, color: RGB) -> None:
    if figure.frame.sees(0.0):
        _neckline(figure, solid, 0.785, 0.55)
    waist = solid.band(figure.frame, 0.640)
    figure.canvas.line(waist, shaded(color, 0.6), figure.px(0.007), alpha=0.5)


def _draw_belt(figure: Figure, solid: Solid, color: RGB) -> None:
    ring = Solid(solid.levels[(solid.levels[:, 0] < 0.655) & (solid.levels[:, 0] > 0.610)])
    if len(ring.levels) < 2:
        return
    dark = shaded(color, 0.55) if sum(color) > 200 else (74, 74, 80)
    figure.canvas.paint(Shape([ring.outline(figure.frame)]), dark, relief=0.03, slot="belt")
    if figure.frame.sees(0.0):
        buckle = ring.surface(
            figure.frame, [(-0.10, 0.647), (0.10, 0.647), (0.10, 0.615), (-0.10, 0.615)]
        )
        figure.canvas.flat(buckle, shaded(color, 0.40) if sum(color) > 200 else (150, 140, 110))


_DETAILS: dict[str, Callable[[Figure, Solid, RGB], None]] = {
    "coat": _detail_coat,
    "jacket": _detail_jacket,
    "hoodie": _detail_hoodie,
    "shirt": _detail_shirt,
    "t-shirt": _detail_tshirt,
    "dress": _detail_dress,
}
