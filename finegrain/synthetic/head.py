"""Head, face, hair and hats."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from finegrain.synthetic.body import Solid, head_solid
from finegrain.synthetic.canvas import Shape
from finegrain.synthetic.figure import Figure, shaded
from finegrain.synthetic.palette import HAIR, RGB, SKIN
from finegrain.synthetic.shapes import Points, closed_curve, disc, points

# Edge of the face under the hair, as (azimuth, height), from the chin up on the left side.
_FACE_SHORT = ((1.70, 0.895), (1.62, 0.925), (1.15, 0.950), (0.95, 0.972), (0.30, 0.980))
_FACE_LONG = ((1.20, 0.868), (1.15, 0.905), (1.00, 0.945), (0.62, 0.972), (0.10, 0.981))

# Hair hanging down behind: height, half width, half depth, forward offset.
_HANGING: dict[str, Points] = {
    "medium": points(
        (0.985, 0.040, 0.050, -0.006),
        (0.950, 0.055, 0.062, -0.010),
        (0.900, 0.058, 0.056, -0.022),
        (0.860, 0.060, 0.046, -0.030),
        (0.828, 0.056, 0.036, -0.036),
        (0.815, 0.040, 0.026, -0.038),
    ),
    "long": points(
        (0.985, 0.040, 0.050, -0.006),
        (0.950, 0.054, 0.062, -0.010),
        (0.900, 0.056, 0.054, -0.024),
        (0.850, 0.060, 0.042, -0.040),
        (0.800, 0.064, 0.030, -0.056),
        (0.750, 0.060, 0.024, -0.060),
        (0.715, 0.044, 0.018, -0.058),
    ),
}
_CURLY_GAIN = 1.16


@cache
def _skull() -> Solid:
    return head_solid()


@cache
def _cap_of_hair(thickness: float) -> Solid:
    """Hair on the skull, down to the nape."""
    levels = _skull().levels[_skull().levels[:, 0] > 0.885].copy()
    levels[:, 1:3] += thickness
    levels[:, 0] += thickness * np.clip((levels[:, 0] - 0.94) / 0.06, 0.0, 1.0)
    levels[:, 3] -= 0.35 * thickness
    return Solid(levels)


def draw_neck(figure: Figure) -> None:
    """The neck, from the shoulders to the head."""
    width = 0.030 if figure.person.gender == "man" else 0.025
    pieces = figure.limb([(0.0, 0.825, -0.006), (0.0, 0.895, 0.002)], (width * 1.12, width))
    figure.paint_skin(pieces, relief=0.025, gain=0.86)


def draw_hair_behind(figure: Figure) -> None:
    """Hanging hair, of which the trunk or the head hides a part."""
    person = figure.person
    color = HAIR[person.hair_color]
    if person.hair_style == "ponytail":
        _draw_ponytail(figure, color)
    elif person.hair_style == "bun":
        _draw_bun(figure, color)
    elif person.hair_length != "short":
        _draw_hanging(figure, color)


def draw_head(figure: Figure) -> None:
    """Head with face, hair and hat, without hanging hair."""
    person, frame = figure.person, figure.frame
    skin = SKIN[person.skin]
    skull = _skull()
    figure.paint_skin([skull.outline(frame)], relief=0.045)
    if abs(frame.turn[1]) > 0.35:
        _draw_nose(figure)
    if frame.turn[0] > -0.35:
        _draw_face(figure, skull, skin)
    _draw_hair_cap(figure, skull)
    if person.hat is not None:
        _draw_hat(figure)


def _draw_nose(figure: Figure) -> None:
    nose = figure.lump([(0.0, 0.925, 0.052), (0.0, 0.908, 0.060)], (0.006, 0.008))
    figure.paint_skin([nose], relief=0.012)


def _draw_face(figure: Figure, skull: Solid, skin: RGB) -> None:
    frame, canvas = figure.frame, figure.canvas
    dark = shaded(skin, 0.35)
    for sign in (-1.0, 1.0):
        if not frame.sees(sign * 0.42):
            continue
        brow = skull.surface(frame, [(sign * 0.22, 0.943), (sign * 0.66, 0.944)])
        canvas.line(brow, shaded(HAIR[figure.person.hair_color], 0.7), figure.px(0.006), alpha=0.5)
        socket = skull.surface(frame, [(sign * 0.42, 0.931)])[0]
        canvas.flat(disc(socket, (figure.px(0.0085), figure.px(0.0045))), shaded(skin, 0.66))
        canvas.flat(disc(socket, figure.px(0.0038)), (48, 38, 34))
    if frame.sees(0.0):
        bridge = skull.surface(frame, [(0.06, 0.930), (0.10, 0.909), (-0.04, 0.905)])
        canvas.line(bridge, shaded(skin, 0.66), figure.px(0.006), alpha=0.55)
        lips = (176, 74, 74) if figure.person.gender == "woman" else shaded(skin, 0.62)
        mouth = skull.surface(frame, [(-0.24, 0.891), (0.0, 0.890), (0.24, 0.891)])
        canvas.line(mouth, lips, figure.px(0.008), alpha=0.85)
    for sign in (-1.0, 1.0):
        if figure.person.hair_length == "short" and frame.sees(sign * 1.5):
            ear = skull.surface(frame, [(sign * 1.57, 0.922)])[0]
            canvas.paint(
                Shape([disc(ear, (figure.px(0.008), figure.px(0.016)))]),
                shaded(skin, 0.94),
                relief=0.01,
            )
            canvas.flat(disc(ear, (figure.px(0.003), figure.px(0.007))), dark)


def _face_patch(figure: Figure, skull: Solid) -> Points:
    """The visible part of the face, in pixels."""
    loose = figure.person.hair_length != "short" and figure.person.hair_style in (
        "straight",
        "curly",
    )
    left = _FACE_LONG if loose else _FACE_SHORT
    rows = [*left, *((-azimuth, height) for azimuth, height in reversed(left))]
    return skull.surface(figure.frame, rows)


def _draw_hair_cap(figure: Figure, skull: Solid) -> None:
    person, frame = figure.person, figure.frame
    curly = person.hair_style == "curly"
    thickness = 0.014 if curly else (0.007 if person.hair_length == "short" else 0.009)
    cap = _cap_of_hair(thickness)
    shape = Shape([cap.outline(frame)])
    if frame.turn[0] > -0.45:
        patch = _face_patch(figure, skull)
        # Extends below the chin, so that only the hairline limits it.
        low = patch.copy()
        low[[0, -1], 1] += figure.px(0.05)
        shape.cut.append(low)
    color = HAIR[person.hair_color]
    strands = [
        figure.fold(cap, [(az, 1.0), (az * 1.1, 0.93)], width=0.010, strength=-26.0)
        for az in (-2.4, -1.7, -0.9, 0.6, 1.4, 2.2)
        if frame.sees(az)
    ]
    figure.canvas.paint(
        shape,
        color,
        relief=0.04,
        depth=1.1,
        folds=strands,
        wrinkles=16.0 if curly else 7.0,
        slot="hair",
    )


def _draw_hanging(figure: Figure, color: RGB) -> None:
    person = figure.person
    levels = _HANGING[person.hair_length].copy()
    curly = person.hair_style == "curly"
    if curly:
        levels[:, 1:3] *= _CURLY_GAIN
    solid = Solid(levels)
    outline = closed_curve(solid.outline(figure.frame), 2)
    strands = [
        figure.fold(solid, [(az, 0.95), (az, 0.85), (az, 0.74)], width=0.010, strength=strength)
        for az, strength in ((2.2, -26.0), (2.7, 22.0), (3.2, -26.0), (3.8, 20.0), (4.2, -24.0))
        if figure.frame.sees(az)
    ]
    figure.canvas.paint(
        Shape([outline]),
        color,
        relief=0.04,
        folds=strands,
        wrinkles=18.0 if curly else 7.0,
        slot="hair",
    )


def draw_front_strands(figure: Figure) -> None:
    """Long loose hair that falls over the shoulders, seen from the front."""
    person = figure.person
    if person.hair_length != "long" or person.hair_style not in ("straight", "curly"):
        return
    pieces: list[Points] = []
    for sign in (-1.0, 1.0):
        if figure.frame.sees(sign * 0.9):
            joints = [
                (sign * 0.047, 0.93, 0.010),
                (sign * 0.054, 0.86, 0.030),
                (sign * 0.060, 0.77, 0.066),
            ]
            pieces += figure.limb(joints, (0.012, 0.018, 0.009))
    if pieces:
        figure.canvas.paint(
            Shape(pieces), HAIR[person.hair_color], relief=0.02, wrinkles=8.0, slot="hair"
        )


def _draw_ponytail(figure: Figure, color: RGB) -> None:
    pieces = figure.limb(
        [(0.0, 0.955, -0.055), (0.0, 0.925, -0.090), (0.004, 0.86, -0.092), (0.008, 0.79, -0.078)],
        (0.018, 0.024, 0.024, 0.010),
    )
    figure.canvas.paint(Shape(pieces), color, relief=0.03, wrinkles=9.0, slot="hair")


def _draw_bun(figure: Figure, color: RGB) -> None:
    knot = figure.lump([(0.0, 0.985, -0.062)], [0.031])
    figure.canvas.paint(Shape([knot]), color, relief=0.03, wrinkles=12.0, slot="hair")


def _draw_hat(figure: Figure) -> None:
    person = figure.person
    assert person.hat_color is not None
    color = figure.cloth(person.hat_color)
    {"cap": _draw_cap, "beanie": _draw_beanie, "hat": _draw_brimmed}[str(person.hat)](figure, color)


def _dome(low: float, thickness: float, rise: float) -> Solid:
    levels = _skull().levels[_skull().levels[:, 0] > low].copy()
    levels[:, 1:3] += thickness
    levels[:, 0] += rise * np.clip((levels[:, 0] - low) / (1.0 - low), 0.0, 1.0)
    return Solid(levels)


def _brim(figure: Figure, height: float, reach: tuple[float, float], forward: float) -> Points:
    """A flat ring around the head, [n, 2] pixels."""
    turn = np.linspace(0.0, math.tau, 20, endpoint=False)
    ring = np.stack(
        [reach[0] * np.sin(turn), np.full(20, height), reach[1] * np.cos(turn) + forward], axis=1
    ).astype(np.float32)
    return figure.frame.project(ring)


def _draw_cap(figure: Figure, color: RGB) -> None:
    dome = _dome(0.958, 0.011, 0.012)
    peak_behind = figure.frame.turn[0] < -0.2
    # Lower at the front edge, like a peak.
    peak = _brim(figure, 0.960, (0.042, 0.040), 0.070)
    if peak_behind:
        figure.canvas.paint(Shape([peak]), shaded(color, 0.75), relief=0.012, slot="hat")
    figure.canvas.paint(Shape([dome.outline(figure.frame)]), color, relief=0.04, slot="hat")
    if not peak_behind:
        centre = figure.lump(
            [
                (0.0, 0.958, 0.055),
                (0.024, 0.950, 0.092),
                (-0.024, 0.950, 0.092),
                (0.040, 0.957, 0.045),
                (-0.040, 0.957, 0.045),
            ],
            0.006,
        )
        figure.canvas.paint(Shape([centre]), shaded(color, 0.82), relief=0.014, slot="hat")


def _draw_beanie(figure: Figure, color: RGB) -> None:
    dome = _dome(0.950, 0.013, 0.022)
    cuff = Solid(dome.levels[dome.levels[:, 0] < 0.978] + points((0.0, 0.004, 0.004, 0.0)))
    ribs = [
        figure.fold(dome, [(az, 1.01), (az, 0.95)], width=0.007, strength=-30.0)
        for az in np.arange(-3.0, 3.0, 0.4)
        if figure.frame.sees(float(az))
    ]
    figure.canvas.paint(
        Shape([dome.outline(figure.frame)]), color, relief=0.04, folds=ribs, slot="hat"
    )
    figure.canvas.paint(
        Shape([cuff.outline(figure.frame)]),
        shaded(color, 0.88),
        relief=0.02,
        folds=ribs,
        slot="hat",
    )


def _draw_brimmed(figure: Figure, color: RGB) -> None:
    brim = _brim(figure, 0.966, (0.098, 0.105), 0.0)
    dome = _dome(0.960, 0.010, 0.024)
    band = Solid(dome.levels[dome.levels[:, 0] < 0.984] + points((0.0, 0.001, 0.001, 0.0)))
    lower = brim + points((0.0, figure.px(0.008)))
    figure.canvas.paint(Shape([lower]), shaded(color, 0.62), relief=0.012, slot="hat")
    figure.canvas.paint(Shape([brim]), color, relief=0.016, slot="hat")
    figure.canvas.paint(Shape([dome.outline(figure.frame)]), color, relief=0.04, slot="hat")
    dark = shaded(color, 0.45) if sum(color) > 200 else (92, 92, 96)
    figure.canvas.paint(Shape([band.outline(figure.frame)]), dark, relief=0.02)
