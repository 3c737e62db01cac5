"""Coats, jackets, hoodies, shirts, t-shirts and dresses, with arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finegrain.synthetic.body import Solid, draped
from finegrain.synthetic.canvas import Fold, Shape
from finegrain.synthetic.details import draw_details, inner_color
from finegrain.synthetic.figure import Figure, shaded, stations
from finegrain.synthetic.lower import skirt_folds, skirt_solid
from finegrain.synthetic.shapes import Points, points
from finegrain.synthetic.trimming import draw_trimming

Ease = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """The cut of a garment.

    Attributes:
        top: Height of its upper edge.
        hem: Height of its lower edge.
        ease: (height, distance from the body) knots.
        sleeve: Radii from shoulder to cuff.
        wrinkles: Strength of random wrinkles.
    """

    top: float
    hem: float
    ease: Ease
    sleeve: tuple[float, float, float, float, float]
    wrinkles: float


_CUTS: dict[str, Cut] = {
    "coat": Cut(
        0.852,
        0.285,
        ((0.85, 0.006), (0.80, 0.012), (0.70, 0.014), (0.62, 0.014), (0.50, 0.020), (0.285, 0.034)),
        (0.039, 0.042, 0.038, 0.035, 0.034),
        4.0,
    ),
    "jacket": Cut(
        0.850,
        0.510,
        ((0.85, 0.006), (0.80, 0.012), (0.72, 0.017), (0.60, 0.018), (0.51, 0.006)),
        (0.039, 0.043, 0.039, 0.036, 0.031),
        6.0,
    ),
    "hoodie": Cut(
        0.850,
        0.490,
        ((0.85, 0.006), (0.80, 0.010), (0.70, 0.017), (0.56, 0.020), (0.49, 0.008)),
        (0.037, 0.041, 0.039, 0.036, 0.028),
        6.0,
    ),
    "shirt": Cut(
        0.850,
        0.485,
        ((0.85, 0.003), (0.80, 0.006), (0.70, 0.008), (0.58, 0.010), (0.485, 0.012)),
        (0.035, 0.036, 0.032, 0.029, 0.026),
        5.0,
    ),
    "t-shirt": Cut(
        0.843,
        0.500,
        ((0.84, 0.002), (0.80, 0.005), (0.70, 0.007), (0.58, 0.011), (0.50, 0.013)),
        (0.036, 0.040, 0.036, 0.031, 0.027),
        5.0,
    ),
}
_DRESS_SLEEVE = (0.032, 0.034, 0.030, 0.028, 0.027)
_BARE_ARM = {
    "woman": (0.030, 0.025, 0.021, 0.020, 0.014),
    "man": (0.035, 0.031, 0.026, 0.025, 0.018),
}
_SHORT_SLEEVE = 0.40


def upper_solid(figure: Figure) -> Solid:
    """The upper garment around the trunk."""
    if figure.person.upper == "dress":
        skirt = skirt_solid(figure, top=0.64, ease_top=0.005)
        bodice = draped(
            figure.trunk, top=0.838, hem=0.645, ease=[(0.838, 0.001), (0.73, 0.005), (0.645, 0.004)]
        )
        return Solid(np.concatenate([bodice.levels, skirt.levels[1:]]))
    cut = _CUTS[figure.person.upper]
    stride = 0.50 * figure.pose.stride if figure.person.upper == "coat" else 0.0
    return draped(figure.trunk, top=cut.top, hem=cut.hem, ease=cut.ease, stride=stride)


def draw_upper(figure: Figure) -> None:
    """The body of a garment. Arms are drawn separately, since they may be in front or behind."""
    person = figure.person
    solid = upper_solid(figure)
    color = figure.cloth(person.upper_color)
    shape = Shape([solid.outline(figure.frame)])
    folds = _trunk_folds(figure, solid)
    if person.upper == "dress":
        folds += skirt_folds(figure, solid, 0.58)
    opened = person.upper_open and figure.frame.sees(0.0)
    if opened:
        _draw_inner(figure)
        shape.cut.append(_opening(figure, solid))
    wrinkles = 4.0 if person.upper == "dress" else _CUTS[person.upper].wrinkles
    figure.canvas.paint(
        shape,
        color,
        relief=0.075,
        folds=folds,
        wrinkles=wrinkles,
        weave=figure.weave(person.upper_pattern, person.upper_second_color, (0.0, 1.0)),
        slot="upper",
    )
    draw_details(figure, solid)
    draw_trimming(figure, solid, figure.trim_of("upper"))


def draw_arm(figure: Figure, side: int) -> None:
    """One arm: sleeve, bare skin and hand."""
    person = figure.person
    line = stations(figure.pose.arms[side])
    build = 0.5 + 0.5 * person.build
    hand = figure.pose.hands[side]
    wrist = line[-1]
    palm = figure.limb([wrist, (wrist + hand) / 2, hand], (0.013, 0.019, 0.012))
    figure.paint_skin(palm)
    radii = np.asarray(_DRESS_SLEEVE if person.upper == "dress" else _CUTS[person.upper].sleeve)
    if person.sleeves == "short":
        figure.paint_skin(figure.limb(line, _BARE_ARM[person.gender]))
        at = np.linspace(0.0, 1.0, 5)
        shares = np.asarray([0.0, 0.25, _SHORT_SLEEVE])
        line = np.stack([np.interp(shares, at, line[:, i]) for i in range(3)], axis=1)
        radii = np.interp(shares, at, radii) + np.asarray([0.0, 0.0, 0.004])
    pieces = figure.limb(line, radii * build, round_end=False)
    drawn = figure.frame.project(np.asarray(line, np.float32))
    own = figure.trim_of("upper").sleeves
    color = figure.cloth(own or person.upper_color)
    pattern = "plain" if own else person.upper_pattern
    figure.canvas.paint(
        Shape(pieces),
        color,
        relief=0.034,
        folds=_sleeve_folds(figure, drawn),
        wrinkles=4.0,
        weave=figure.weave(pattern, person.upper_second_color, drawn[-1] - drawn[0]),
        slot="upper",
    )
    if person.upper in ("hoodie", "jacket"):
        inner = line[-1] + 0.30 * (line[-2] - line[-1])
        cuff = figure.limb([inner, line[-1]], radii[-1] * 1.04, round_end=False)[:1]
        figure.canvas.paint(Shape(cuff), shaded(color, 0.86), relief=0.03, slot="upper")


def _sleeve_folds(figure: Figure, line: Points) -> list[Fold]:
    if len(line) < 5:
        return []
    width = figure.px(0.03)
    folds = []
    for share, strength in ((0.44, -30.0), (0.52, -34.0), (0.60, -22.0), (0.86, -22.0)):
        x = np.interp(share, np.linspace(0, 1, len(line)), line[:, 0])
        y = np.interp(share, np.linspace(0, 1, len(line)), line[:, 1])
        crease = points((x - width, y + 0.5 * width), (x + width, y - 0.2 * width))
        folds.append(Fold(crease, figure.px(0.010), strength))
    return folds


def _trunk_folds(figure: Figure, solid: Solid) -> list[Fold]:
    """Creases from the armpits, at the waist and down the back."""
    folds = []
    for sign in (-1.0, 1.0):
        for centre in (0.0, math.pi):
            if not figure.frame.sees(centre + sign * 0.5):
                continue
            path = [(centre + sign * 1.1, 0.745), (centre + sign * 0.55, 0.68)]
            folds.append(figure.fold(solid, path, strength=-26.0))
            path = [(centre + sign * 1.2, 0.64), (centre + sign * 0.4, 0.60)]
            folds.append(figure.fold(solid, path, strength=-24.0))
            path = [(centre + sign * 0.9, 0.60), (centre + sign * 0.25, 0.55)]
            folds.append(figure.fold(solid, path, strength=18.0))
    return folds


def _opening(figure: Figure, solid: Solid) -> Points:
    """The area where an open coat or jacket shows the garment under it."""
    hem = float(solid.levels[:, 0].min()) - 0.05
    wide = 0.34 if figure.person.upper == "coat" else 0.40
    left = [(-0.30, 0.86), (-wide, 0.74), (-0.8 * wide, 0.60), (-1.1 * wide, hem)]
    right = [(-azimuth, height) for azimuth, height in reversed(left)]
    return solid.surface(figure.frame, left + right)


def _draw_inner(figure: Figure) -> None:
    """The garment under an open coat: light under dark, and dark under light."""
    color = inner_color(figure)
    solid = draped(figure.trunk, top=0.845, hem=0.50, ease=[(0.845, 0.0), (0.5, 0.006)])
    folds = _trunk_folds(figure, solid)
    figure.canvas.paint(Shape([solid.outline(figure.frame)]), color, folds=folds, slot="inner")


def draw_hood(figure: Figure) -> None:
    """The hood of a hoodie on the shoulders, behind the neck."""
    color = figure.cloth(figure.person.upper_color)
    back = figure.lump(
        [
            (0.0, 0.845, -0.050),
            (0.052, 0.850, -0.020),
            (-0.052, 0.850, -0.020),
            (0.0, 0.79, -0.075),
        ],
        (0.032, 0.024, 0.024, 0.022),
    )
    crease = figure.frame.project(
        points((-0.045, 0.846, -0.06), (0.0, 0.815, -0.09), (0.045, 0.846, -0.06))
    )
    folds = [Fold(crease, figure.px(0.014), -40.0)]
    figure.canvas.paint(Shape([back]), color, relief=0.03, folds=folds, slot="upper")
