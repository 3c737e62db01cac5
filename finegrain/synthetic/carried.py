"""Carried things: backpacks, handbags, shoulder bags and umbrellas."""

from __future__ import annotations

import math

import numpy as np

from finegrain.synthetic.body import Solid
from finegrain.synthetic.canvas import Fold, Shape
from finegrain.synthetic.figure import Figure, shaded
from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import Points, disc, open_curve, points, ribbon

_BAG_SIDE = 1
_RIBS = 8
_CANOPY_RADIUS = 0.285
_CANOPY_LOW = 1.035
_CANOPY_TOP = 1.165
_CANOPY_FORWARD = 0.045


def _bag_color(figure: Figure) -> RGB:
    assert figure.person.bag_color is not None
    return figure.cloth(figure.person.bag_color)


def _box(center: tuple[float, float, float], half: tuple[float, float, float]) -> Points:
    signs = np.asarray([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    return points(center) + signs * points(half)


def draw_backpack(figure: Figure) -> None:
    """The backpack on the back; its straps are drawn by `draw_straps`."""
    color = _bag_color(figure)
    pack = figure.lump(_box((0.0, 0.695, -0.112), (0.062, 0.088, 0.026)), 0.022)
    lid = figure.frame.project(
        points((-0.08, 0.755, -0.16), (0.0, 0.735, -0.16), (0.08, 0.755, -0.16))
    )
    folds = [Fold(lid, figure.px(0.010), -46.0)] if figure.frame.turn[0] < 0.4 else []
    figure.canvas.paint(Shape([pack]), color, relief=0.05, folds=folds, wrinkles=4.0, slot="bag")
    if figure.frame.turn[0] < -0.2:
        pocket = figure.lump(_box((0.0, 0.650, -0.150), (0.044, 0.030, 0.004)), 0.014)
        figure.canvas.paint(Shape([pocket]), shaded(color, 0.86), relief=0.018, slot="bag")
        grip = figure.frame.project(
            points((-0.02, 0.800, -0.11), (0.0, 0.822, -0.11), (0.02, 0.800, -0.11))
        )
        figure.canvas.line(grip, shaded(color, 0.6), figure.px(0.008))


def draw_straps(figure: Figure, solid: Solid) -> None:
    """A backpack's straps over the chest."""
    color = shaded(_bag_color(figure), 0.95)
    for sign in (-1.0, 1.0):
        if not figure.frame.sees(sign * 0.75):
            continue
        rows = [
            (sign * 1.25, 0.828),
            (sign * 0.72, 0.80),
            (sign * 0.66, 0.74),
            (sign * 0.85, 0.68),
            (sign * 1.35, 0.64),
        ]
        _draw_strap(figure, solid.surface(figure.frame, rows), color, 0.0125)


def draw_shoulder_bag(figure: Figure, solid: Solid) -> None:
    """A bag on the left hip with its strap across the trunk."""
    color = _bag_color(figure)
    _draw_cross_strap(figure, solid, color)
    # Behind the body only in a view from the right side.
    wide = float(solid.at(0.55)[0, 0])
    bag = figure.lump(
        _box((_BAG_SIDE * (wide + 0.020), 0.515, 0.005), (0.010, 0.048, 0.062)), 0.014
    )
    flap = figure.lump(
        _box((_BAG_SIDE * (wide + 0.026), 0.540, 0.005), (0.008, 0.022, 0.062)), 0.015
    )
    figure.canvas.paint(Shape([bag]), color, relief=0.04, wrinkles=3.0, slot="bag")
    figure.canvas.paint(Shape([flap]), shaded(color, 0.88), relief=0.02, slot="bag")


def _draw_cross_strap(figure: Figure, solid: Solid, color: RGB) -> None:
    front = [(-1.25, 0.832), (-0.60, 0.790), (0.0, 0.715), (0.60, 0.640), (1.15, 0.585)]
    for rows, azimuth in ((front, 0.0), ([(math.pi - az, y) for az, y in front], math.pi)):
        if figure.frame.sees(azimuth) or abs(figure.frame.turn[0]) < 0.3:
            _draw_strap(figure, solid.surface(figure.frame, rows), shaded(color, 0.92), 0.0095)


def _draw_strap(figure: Figure, line: Points, color: RGB, radius: float) -> None:
    figure.canvas.paint(Shape(ribbon(line, figure.px(radius))), color, relief=0.014, slot="bag")


def draw_handbag(figure: Figure) -> None:
    """A handbag in the left hand."""
    color = _bag_color(figure)
    hand = figure.pose.hands[0]
    low = (float(hand[0]), float(hand[1]) - 0.098, float(hand[2]))
    for across in (-0.012, 0.012):
        grip = figure.frame.project(
            points(
                (low[0] + across, low[1] + 0.045, low[2] - 0.048),
                (low[0] + across, hand[1] + 0.018, low[2]),
                (low[0] + across, low[1] + 0.045, low[2] + 0.048),
            )
        )
        figure.canvas.line(grip, shaded(color, 0.7), figure.px(0.010))
    corners = _box(low, (0.018, 0.042, 0.066))
    # Wider at the bottom, and as wide from the front as a swinging bag.
    corners[corners[:, 1] < low[1], 0] += (
        np.sign(corners[corners[:, 1] < low[1], 0] - low[0]) * 0.018
    )
    folds = [
        Fold(
            figure.frame.project(
                points(
                    (low[0], low[1] + 0.022, low[2] - 0.07), (low[0], low[1] + 0.022, low[2] + 0.07)
                )
            ),
            figure.px(0.008),
            -40.0,
        )
    ]
    figure.canvas.paint(
        Shape([figure.lump(corners, 0.012)]), color, relief=0.035, folds=folds, slot="bag"
    )


def draw_umbrella(figure: Figure) -> None:
    """The open canopy over the head."""
    assert figure.person.umbrella_color is not None
    color = figure.cloth(figure.person.umbrella_color)
    frame = figure.frame
    dome = _canopy(_CANOPY_FORWARD)
    yaw = math.atan2(frame.turn[1], frame.turn[0])
    ribs = [(i + 0.5) * math.tau / _RIBS for i in range(_RIBS)]
    folds, notches = [], []
    for azimuth in ribs:
        path = [(azimuth, _CANOPY_TOP), (azimuth, 1.12), (azimuth, _CANOPY_LOW)]
        if math.cos(azimuth + yaw) > -0.05:
            folds.append(figure.fold(dome, path, width=0.012, strength=-38.0))
        between = azimuth + math.pi / _RIBS
        if math.cos(between + yaw) > 0.0:
            # The edge is higher between the ribs.
            spot = dome.surface(frame, [(between, _CANOPY_LOW)])[0] + points(
                (0.0, figure.px(0.012))
            )
            across = 0.02 + 0.085 * math.cos(between + yaw)
            notches.append(disc(spot, (figure.px(across), figure.px(0.022))))
    figure.canvas.paint(
        Shape([dome.outline(frame)], notches), color, relief=0.09, folds=folds, slot="umbrella"
    )
    tip = frame.project(points((0.0, _CANOPY_TOP, _CANOPY_FORWARD), (0.0, 1.20, _CANOPY_FORWARD)))
    figure.canvas.line(tip, (60, 60, 64), figure.px(0.009))


def _canopy(forward: float) -> Solid:
    """The umbrella's cloth."""
    profile = np.asarray(
        [
            (_CANOPY_LOW, 1.00),
            (1.070, 0.93),
            (1.105, 0.77),
            (1.135, 0.54),
            (1.155, 0.28),
            (_CANOPY_TOP, 0.02),
        ],
        np.float32,
    )
    levels = np.stack(
        [
            profile[:, 0],
            profile[:, 1] * _CANOPY_RADIUS,
            profile[:, 1] * _CANOPY_RADIUS,
            np.full(len(profile), forward),
        ],
        axis=1,
    )
    return Solid(open_curve(levels.astype(np.float32), 3))


def draw_umbrella_shaft(figure: Figure) -> None:
    """The stick between hand and canopy; the body hides it from behind."""
    hand = figure.pose.hands[1]
    shaft = figure.frame.project(
        points((hand[0], hand[1] - 0.07, hand[2]), (0.0, _CANOPY_LOW + 0.05, _CANOPY_FORWARD))
    )
    figure.canvas.line(shaft, (70, 70, 74), figure.px(0.009))
