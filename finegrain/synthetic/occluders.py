"""Objects between the camera and the person."""

from __future__ import annotations

import random

import cv2
import numpy as np

from finegrain.synthetic.canvas import Pixels
from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import Points, blob, disc, points, ribbon
from finegrain.synthetic.stage import CARS, DULL, Stage
from finegrain.synthetic.view import View

_SHIFT = 4


def occlude(pixels: Pixels, view: View) -> None:
    """Draw an object between the camera and the person, in place."""
    if view.occluder is None:
        return
    rng = random.Random(f"{view.scene_seed}/occluder")
    stage = Stage(pixels, rng)
    {
        "pole": _pole,
        "bench": _bench,
        "car": _car_edge,
        "passer-by": _passer_edge,
        "bush": _bush,
    }[view.occluder](stage, view.occluder_side)


def _pole(stage: Stage, side: int) -> None:
    x = 0.5 + side * stage.rng.uniform(0.20, 0.34)
    wide = stage.rng.uniform(0.05, 0.09)
    base = stage.near(stage.rng.choice([(86, 88, 90), (120, 120, 118), (64, 70, 68)]))
    for share, gain in ((0.0, 0.75), (0.25, 1.1), (0.6, 0.95), (0.82, 0.65)):
        color = (int(base[0] * gain), int(base[1] * gain), int(base[2] * gain))
        stage.rect(x + wide * share, 0.0, x + wide, 1.0, color)


def _bench(stage: Stage, side: int) -> None:
    top = stage.rng.uniform(0.80, 0.86)
    wood = stage.near((124, 92, 62), 0.15)
    left, right = (-0.1, 0.80) if side < 0 else (0.20, 1.1)
    for i in range(3):
        y = top + 0.05 * i
        stage.rect(left, y, right, y + 0.036, stage.near(wood, 0.06))
        stage.rect(left, y + 0.030, right, y + 0.036, (74, 54, 38))
    for x in (left + 0.14, right - 0.18):
        stage.rect(x, top - 0.01, x + 0.05, 1.0, (52, 54, 56))


def _car_edge(stage: Stage, side: int) -> None:
    color = stage.near(stage.rng.choice(CARS))
    top = stage.rng.uniform(0.80, 0.87)

    def turned(path: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return path if side > 0 else [(1.0 - x, y) for x, y in path]

    stage.fill(
        turned(
            [
                (-0.1, 1.1),
                (-0.1, top + 0.06),
                (0.3, top + 0.02),
                (0.7, top),
                (1.1, top - 0.06),
                (1.1, 1.1),
            ]
        ),
        color,
    )
    shine = (min(255, color[0] + 40), min(255, color[1] + 40), min(255, color[2] + 44))
    stage.line(
        turned([(-0.1, top + 0.07), (0.3, top + 0.03), (0.7, top + 0.012), (1.1, top - 0.045)]),
        shine,
        2,
    )
    stage.fill(
        turned([(0.0, top + 0.09), (0.16, top + 0.075), (0.20, top + 0.11), (0.02, top + 0.125)]),
        (206, 204, 190),
    )


def _passer_edge(stage: Stage, side: int) -> None:
    height, width = stage.pixels.shape[:2]
    x = width * (0.5 + side * stage.rng.uniform(0.50, 0.58))
    unit = height * 0.95
    top, bottom = stage.rng.choice(DULL), stage.rng.choice(DULL)
    layer = stage.pixels.copy()

    def at(dx: float, y: float) -> tuple[float, float]:
        return x + dx * unit, height * 1.02 - y * unit

    parts: list[tuple[list[Points], RGB]] = [
        (ribbon(points(at(-0.04, 0.5), at(-0.05, 0.0)), 0.055 * unit), bottom),
        (ribbon(points(at(0.04, 0.5), at(0.05, 0.0)), 0.055 * unit), bottom),
        (
            [
                blob(
                    points(at(-0.07, 0.77), at(0.07, 0.77), at(0.06, 0.50), at(-0.06, 0.50)),
                    0.05 * unit,
                )
            ],
            top,
        ),
        (ribbon(points(at(-0.12, 0.78), at(-0.14, 0.50)), 0.035 * unit), top),
        (ribbon(points(at(0.12, 0.78), at(0.14, 0.50)), 0.035 * unit), top),
        ([disc(at(0.0, 0.93), (0.046 * unit, 0.064 * unit))], (46, 38, 34)),
    ]
    for outlines, color in parts:
        for outline in outlines:
            fixed = np.rint(outline * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(layer, [fixed], color, cv2.LINE_AA, _SHIFT)
    # It is nearer than the person, so it is out of focus.
    mask = cv2.absdiff(layer, stage.pixels).max(axis=2)
    if mask.any():
        alpha = cv2.blur((mask > 0).astype(np.float32), (5, 5))
        soft = cv2.blur(layer, (5, 5))
        stage.pixels[:] = cv2.blendLinear(soft, stage.pixels, alpha, 1.0 - alpha)


def _bush(stage: Stage, side: int) -> None:
    centre = 0.5 + side * 0.30
    for _ in range(26):
        leaf = stage.near(stage.rng.choice([(62, 86, 50), (84, 106, 62), (46, 66, 42)]), 0.15)
        y = stage.rng.uniform(0.86, 1.02)
        stage.oval(centre + stage.rng.gauss(0.0, 0.24), y, 0.10, 0.035, leaf)
