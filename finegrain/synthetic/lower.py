"""Legs, trousers, skirts and shoes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from finegrain.synthetic.body import Solid, draped
from finegrain.synthetic.canvas import Fold, Shape
from finegrain.synthetic.figure import Figure, shaded, stations
from finegrain.synthetic.palette import DENIM, RGB
from finegrain.synthetic.pose import SIDES
from finegrain.synthetic.shapes import Points, points
from finegrain.synthetic.trimming import draw_leg_trimming, draw_trimming

_BARE = {
    "woman": (0.052, 0.045, 0.031, 0.034, 0.019),
    "man": (0.054, 0.047, 0.034, 0.036, 0.022),
}
# Radii from hip to ankle.
_LEG_WEAR = {
    "trousers": (0.060, 0.055, 0.048, 0.045, 0.043),
    "jeans": (0.057, 0.050, 0.041, 0.039, 0.034),
    "shorts": (0.062, 0.060, 0.056, 0.052, 0.050),
}
# Share of the leg covered by cloth.
_REACH = {"short": 0.36, "knee": 0.50, "cropped": 0.84, "long": 0.99}
SKIRT_HEM = {"short": 0.345, "knee": 0.265, "long": 0.10}
# Creases across a trouser leg: positions as shares of its length, and darkness.
_CREASES = (0.47, 0.55, 0.90, 0.95)
_CREASE_STRENGTHS = (-30.0, -24.0, -34.0, -26.0)
_SKIRT_FLARE = {"short": 0.040, "knee": 0.036, "long": 0.050}


def draw_legs(figure: Figure) -> None:
    """Both legs with shoes and trousers or skirt, the farther leg first."""
    depths = [float(figure.frame.depth(leg).mean()) for leg in figure.pose.legs]
    order = (0, 1) if depths[0] <= depths[1] else (1, 0)
    person = figure.person
    trousers = person.lower in _LEG_WEAR
    if figure.ghost and trousers:
        _draw_trouser_legs(figure, order, seat=True)
    elif not figure.ghost:
        for rank, side in enumerate(order):
            if not trousers or _REACH[person.hem] < 0.95:
                figure.paint_skin(_bare_leg(figure, side), relief=0.035)
            _draw_shoe(figure, side)
            if trousers:
                _draw_trouser_legs(figure, (side,), seat=rank == 1)
    if person.lower == "skirt":
        _draw_skirt(figure)


def skirt_solid(figure: Figure, *, top: float, ease_top: float) -> Solid:
    """Cloth of a skirt or dress from the waist to the hem."""
    hem = SKIRT_HEM[figure.person.hem]
    flare = _SKIRT_FLARE[figure.person.hem]
    return draped(
        figure.trunk,
        top=top,
        hem=hem,
        ease=[(top, ease_top), (0.53, 0.008), (0.44, 0.012), (hem, flare)],
        stride=0.55 * figure.pose.stride,
    )


def skirt_folds(figure: Figure, solid: Solid, top: float, count: int = 7) -> list[Fold]:
    """Vertical creases down to the hem, on all sides."""
    hem = SKIRT_HEM[figure.person.hem]
    folds = []
    for i in range(count):
        azimuth = (i + 0.35) * math.tau / count
        if figure.frame.sees(azimuth):
            start = top - 0.03 * (i % 2)
            path = [(azimuth, start), (azimuth + 0.05, (start + hem) / 2), (azimuth, hem - 0.01)]
            folds.append(figure.fold(solid, path, width=0.020, strength=-34.0))
            lit = [(azimuth + 0.20, start - 0.05), (azimuth + 0.18, hem)]
            folds.append(figure.fold(solid, lit, width=0.020, strength=20.0))
    return folds


def _lower_color(figure: Figure) -> RGB:
    person = figure.person
    assert person.lower_color is not None
    if person.lower == "jeans":
        return shaded(DENIM[person.lower_color], 1.0 + 0.10 * person.tone)
    return figure.cloth(person.lower_color)


def _bare_leg(figure: Figure, side: int) -> list[Points]:
    return figure.limb(stations(figure.pose.legs[side]), _BARE[figure.person.gender])


def _cropped_chain(leg: Points, reach: float) -> tuple[Points, Points]:
    """Points along a leg down to a share of its length, and their shares."""
    full = stations(leg)
    at = np.linspace(0.0, 1.0, 5, dtype=np.float32)
    shares = np.append(at[at < reach - 0.02], reach).astype(np.float32)
    line = np.stack([np.interp(shares, at, full[:, i]) for i in range(3)], axis=1)
    return line.astype(np.float32), shares


def _draw_trouser_legs(figure: Figure, sides: Sequence[int], *, seat: bool) -> None:
    """Legs of trousers, jeans or shorts; the nearer one is drawn with the seat."""
    person, frame = figure.person, figure.frame
    assert person.lower is not None
    pieces: list[Points] = []
    folds: list[Fold] = []
    seams: list[Points] = []
    legs: list[tuple[Points, ArrayLike, int]] = []
    for side in sides:
        line, shares = _cropped_chain(figure.pose.legs[side], _REACH[person.hem])
        radii = np.interp(shares, np.linspace(0, 1, 5), _LEG_WEAR[person.lower]) * person.build
        pieces += figure.limb(line, radii, round_end=False)
        legs.append((line, radii, side))
        drawn = frame.project(line)
        folds += _leg_folds(figure, drawn, seat)
        seams.append(drawn[1:] + points((figure.px(0.022), 0.0)))
    if seat:
        pelvis = draped(
            figure.trunk,
            top=0.625,
            hem=0.475,
            ease=[(0.625, 0.004), (0.53, 0.006), (0.475, -0.012)],
        )
        pieces.append(pelvis.outline(frame))
        if abs(frame.turn[1]) < 0.75:
            folds.append(figure.fold(pelvis, [(0.0, 0.60), (0.0, 0.47)], strength=-30.0))
            folds.append(figure.fold(pelvis, [(math.pi, 0.60), (math.pi, 0.47)], strength=-22.0))
        if len(sides) == 2:
            inseam = points((0.0, 0.49, 0.0), (0.0, float(line[-1][1]), 0.0))
            folds.append(Fold(frame.project(inseam), figure.px(0.010), -70.0))
    color = _lower_color(figure)
    figure.canvas.paint(
        Shape(pieces),
        color,
        relief=0.045,
        folds=folds,
        wrinkles=5.0,
        weave=figure.weave(person.lower_pattern, person.lower_second_color, drawn[-1] - drawn[0]),
        slot="lower",
    )
    for joints, sizes, side in legs:
        draw_leg_trimming(figure, joints, sizes, figure.trim_of("lower"), outer=SIDES[side])
    if seat:
        waistband = pelvis.band(frame, 0.598)
        figure.canvas.line(waistband, shaded(color, 0.6), figure.px(0.006), alpha=0.6)
    if person.lower == "jeans":
        for seam in seams:
            figure.canvas.line(seam, shaded(color, 1.35), 1, alpha=0.35)


def _leg_folds(figure: Figure, line: Points, near: bool) -> list[Fold]:
    width = figure.px(0.045)
    folds = []
    at = np.linspace(0, 1, len(line))
    across, down = (np.interp(_CREASES, at, line[:, axis]) for axis in (0, 1))
    for x, y, strength in zip(across, down, _CREASE_STRENGTHS, strict=True):
        slant = 0.35 if near else -0.35
        crease = points((x - width, y - slant * width), (x + 0.4 * width, y + slant * width * 0.5))
        folds.append(Fold(crease, figure.px(0.011), strength))
    lit = line[1:-1] + points((figure.px(0.004), 0.0))
    if len(lit) > 1:
        folds.append(Fold(lit, figure.px(0.016), 20.0))
    return folds


def _draw_skirt(figure: Figure) -> None:
    person = figure.person
    solid = skirt_solid(figure, top=0.635, ease_top=0.004)
    figure.canvas.paint(
        Shape([solid.outline(figure.frame)]),
        _lower_color(figure),
        relief=0.070,
        folds=skirt_folds(figure, solid, 0.58),
        wrinkles=3.0,
        weave=figure.weave(person.lower_pattern, person.lower_second_color, (0.0, 1.0)),
        slot="lower",
    )
    draw_trimming(figure, solid, figure.trim_of("lower"))


def _draw_shoe(figure: Figure, side: int) -> None:
    person, frame = figure.person, figure.frame
    heel, toe = figure.pose.feet[side]
    ankle = figure.pose.legs[side][2]
    along = toe - heel
    color = figure.cloth(person.shoes_color)
    ball = heel + along * 0.68
    up = points((0.0, 1.0, 0.0))[0]
    if person.shoes == "sandals":
        _draw_bare_foot(figure, heel, toe, ankle)
        sole = figure.lump([heel - up * 0.010, ball - up * 0.012, toe - up * 0.012], 0.013)
        figure.canvas.paint(Shape([sole]), color, relief=0.012, slot="shoes")
        strap = figure.limb([ball + up * 0.016, heel + along * 0.45 + up * 0.022], [0.012, 0.010])
        figure.canvas.paint(Shape(strap), color, relief=0.012, slot="shoes")
        return
    sole_y = up * -0.012
    upper = [heel, ankle - up * 0.008, heel + along * 0.40 + up * 0.014, ball, toe]
    radii = (0.024, 0.024, 0.022, 0.024, 0.017)
    pieces = [figure.lump(upper, radii)]
    if person.shoes == "boots":
        shank = figure.pose.legs[side]
        calf = shank[2] + (shank[1] - shank[2]) * 0.42
        pieces += figure.limb([ankle, calf], (0.031, 0.040), round_end=False)
    if person.shoes == "sneakers":
        rubber = (236, 236, 232) if person.shoes_color != "white" else (190, 190, 190)
        base = figure.lump([heel + sole_y, ball + sole_y, toe + sole_y], (0.022, 0.024, 0.019))
        figure.canvas.paint(Shape([base]), rubber, relief=0.02, depth=0.6, slot="sole")
    folds = []
    if person.shoes == "boots":
        wrinkle = frame.project(points(ankle + up * 0.01 - along * 0.1, ankle + along * 0.25))
        folds.append(Fold(wrinkle, figure.px(0.010), -30.0))
    figure.canvas.paint(Shape(pieces), color, relief=0.028, folds=folds, slot="shoes")
    if person.shoes == "sneakers":
        laces = frame.project(
            points(heel + along * 0.42 + up * 0.030, heel + along * 0.66 + up * 0.020)
        )
        figure.canvas.line(laces, rubber, figure.px(0.008), alpha=0.8)
    elif person.shoes == "shoes":
        welt = frame.project(points(heel - up * 0.022, ball - up * 0.024, toe - up * 0.016))
        figure.canvas.line(welt, shaded(color, 0.5), figure.px(0.010), alpha=0.9)


def _draw_bare_foot(figure: Figure, heel: Points, toe: Points, ankle: Points) -> None:
    foot = figure.lump(
        np.stack([heel, ankle, heel + (toe - heel) * 0.7, toe]), (0.020, 0.019, 0.020, 0.014)
    )
    figure.paint_skin([foot], relief=0.025)
