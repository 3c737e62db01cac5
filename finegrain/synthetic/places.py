"""The six places of the cameras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finegrain.synthetic.palette import RGB
from finegrain.synthetic.stage import CARS, DULL, Stage


def _ground(stage: Stage, horizon: float, color: RGB, joints: RGB | None) -> None:
    stage.rect(0.0, horizon, 1.0, 1.0, color)
    if joints is None:
        return
    vanish = stage.rng.uniform(0.2, 0.8)
    for i in range(-7, 9):
        stage.line([(vanish + 0.10 * i, horizon), (vanish + 0.55 * i, 1.0)], joints)
    depth = 0.02
    y = horizon + depth
    while y < 1.0:
        stage.line([(0.0, y), (1.0, y)], joints)
        depth *= 1.5
        y += depth


def _passers_by(stage: Stage, horizon: float, most: int) -> None:
    for _ in range(stage.rng.randint(0, most)):
        x, tall = stage.rng.uniform(0.02, 0.98), stage.rng.uniform(0.18, 0.34)
        feet = horizon + 0.25 * tall * 0.6
        top, bottom = stage.rng.choice(DULL), stage.rng.choice(DULL)
        broad = 0.22 * tall * 2.0
        stage.rect(x - 0.35 * broad, feet - 0.48 * tall, x + 0.30 * broad, feet, bottom)
        stage.oval(x, feet - 0.66 * tall, 0.5 * broad, 0.22 * tall, top)
        stage.oval(x, feet - 0.93 * tall, 0.20 * broad, 0.075 * tall, (132, 100, 82))


def _street(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    facade = stage.near(
        rng.choice([(150, 140, 128), (128, 126, 126), (164, 150, 136), (108, 104, 104)])
    )
    stage.rect(0.0, 0.0, 1.0, horizon, facade)
    step = rng.uniform(0.24, 0.36)
    x = rng.uniform(-0.2, 0.1)
    while x < 1.0:
        for y in np.arange(0.03, max(horizon - 0.2, 0.04), 0.22):
            pane = stage.near((84, 96, 110), 0.25)
            stage.rect(x, float(y), x + 0.6 * step, float(y) + 0.13, pane)
        x += step
    _ground(stage, horizon, stage.near((118, 117, 115)), None)
    stage.rect(0.0, horizon, 1.0, horizon + 0.09, stage.near((82, 83, 86)))
    stage.rect(0.0, horizon + 0.09, 1.0, horizon + 0.115, (158, 156, 150))
    if rng.random() < 0.6:
        _parked_car(stage, rng.uniform(-0.1, 1.1), horizon + 0.07)
    _passers_by(stage, horizon + 0.1, 2)
    if rng.random() < 0.5:
        x = rng.uniform(0.05, 0.95)
        stage.rect(x, 0.0, x + 0.035, horizon + 0.14, (70, 72, 74))
    for y in (horizon + 0.22, horizon + 0.40):
        stage.line([(0.0, y), (1.0, y + rng.uniform(-0.02, 0.02))], (104, 103, 101))


def _parked_car(stage: Stage, x: float, y: float) -> None:
    color = stage.rng.choice(CARS)
    stage.fill(
        [
            (x - 0.55, y - 0.04),
            (x - 0.5, y - 0.10),
            (x - 0.32, y - 0.11),
            (x - 0.2, y - 0.17),
            (x + 0.2, y - 0.17),
            (x + 0.34, y - 0.10),
            (x + 0.55, y - 0.09),
            (x + 0.57, y - 0.02),
            (x - 0.55, y - 0.02),
        ],
        color,
    )
    stage.fill(
        [(x - 0.27, y - 0.11), (x - 0.17, y - 0.155), (x + 0.17, y - 0.155), (x + 0.27, y - 0.11)],
        (58, 66, 76),
    )
    for wheel in (-0.33, 0.33):
        stage.oval(x + wheel, y - 0.02, 0.10, 0.045, (28, 28, 30))


def _wall(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    brick = stage.near(
        rng.choice([(140, 96, 80), (128, 106, 92), (160, 148, 132), (120, 116, 112)])
    )
    stage.rect(0.0, 0.0, 1.0, horizon, brick)
    course = 0.030
    mortar = tuple(int(0.82 * c + 30) for c in brick)
    for row, y in enumerate(np.arange(0.0, horizon, course)):
        stage.line([(0.0, float(y)), (1.0, float(y))], (mortar[0], mortar[1], mortar[2]))
        for x in np.arange(-0.1 + 0.07 * (row % 2), 1.0, 0.14):
            if rng.random() < 0.2:
                stage.rect(
                    float(x), float(y), float(x) + 0.13, float(y) + course, stage.near(brick, 0.16)
                )
    if rng.random() < 0.4:
        x = rng.uniform(0.0, 0.7)
        stage.rect(x, horizon - 0.55, x + 0.34, horizon, stage.near((88, 80, 72), 0.2))
        stage.rect(x + 0.04, horizon - 0.52, x + 0.30, horizon - 0.3, stage.near((70, 84, 96), 0.2))
    stage.rect(0.0, horizon - 0.02, 1.0, horizon, (86, 82, 80))
    _ground(stage, horizon, stage.near((136, 134, 130)), (118, 116, 112))


def _shop(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.rect(0.0, 0.0, 1.0, horizon, stage.near((74, 70, 68), 0.2))
    stage.rect(
        0.0,
        0.02,
        1.0,
        0.11,
        stage.near(rng.choice([(64, 82, 74), (110, 56, 50), (60, 66, 90), (90, 84, 78)])),
    )
    x = rng.uniform(-0.4, 0.0)
    while x < 1.0:
        glass = stage.near((146, 146, 136), 0.18)
        stage.rect(x, 0.14, x + 0.42, horizon - 0.07, glass)
        for _ in range(3):
            left, top = x + rng.uniform(0.0, 0.3), rng.uniform(0.2, 0.5)
            stage.rect(
                left,
                top,
                left + rng.uniform(0.05, 0.12),
                top + rng.uniform(0.06, 0.2),
                stage.near(rng.choice(DULL), 0.3),
            )
        stage.fill(
            [(x + 0.05, 0.14), (x + 0.15, 0.14), (x + 0.05, 0.40)], stage.near((188, 188, 180), 0.1)
        )
        x += 0.47
    _passers_by(stage, horizon + 0.02, 1)
    _ground(stage, horizon, stage.near((152, 146, 138)), (132, 127, 120))


def _park(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.rect(0.0, 0.0, 1.0, horizon, stage.near((150, 162, 166)))
    for _ in range(14):
        leaf = stage.near(
            rng.choice([(74, 96, 62), (92, 110, 72), (60, 80, 56), (110, 116, 80)]), 0.15
        )
        stage.oval(
            rng.random(),
            rng.uniform(0.0, horizon - 0.1),
            rng.uniform(0.12, 0.3),
            rng.uniform(0.05, 0.12),
            leaf,
        )
    for _ in range(rng.randint(1, 3)):
        x = rng.random()
        stage.rect(
            x, 0.0, x + rng.uniform(0.03, 0.07), horizon + 0.03, stage.near((86, 72, 58), 0.15)
        )
    _ground(stage, horizon - 0.03, stage.near((112, 124, 84)), None)
    lean = rng.uniform(-0.3, 0.3)
    stage.fill(
        [(0.1 + lean, horizon + 0.02), (0.9 + lean, horizon + 0.02), (1.5, 1.0), (-0.5, 1.0)],
        stage.near((166, 156, 140)),
    )
    _passers_by(stage, horizon, 1)


def _hall(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.rect(0.0, 0.0, 1.0, horizon, stage.near((172, 170, 166)))
    for _ in range(rng.randint(2, 4)):
        x = rng.uniform(-0.1, 1.0)
        stage.rect(x, 0.0, x + rng.uniform(0.05, 0.25), horizon, stage.near((150, 150, 152), 0.14))
    if rng.random() < 0.5:
        x = rng.uniform(0.0, 0.8)
        stage.rect(x, 0.12, x + 0.22, 0.32, stage.near(rng.choice(DULL), 0.3))
    stage.rect(0.0, horizon - 0.025, 1.0, horizon, (104, 102, 102))
    _ground(stage, horizon, stage.near((178, 174, 168)), (158, 154, 150))
    for _ in range(3):
        stage.oval(
            rng.random(),
            rng.uniform(horizon + 0.05, 1.0),
            rng.uniform(0.08, 0.2),
            0.025,
            stage.near((196, 193, 188), 0.03),
        )
    _passers_by(stage, horizon + 0.02, 2)


def _crossing(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    top = max(horizon - 0.18, 0.05)
    stage.rect(0.0, 0.0, 1.0, top, stage.near((132, 130, 126)))
    _ground(stage, top, stage.near((92, 93, 96)), None)
    lean = rng.uniform(-0.25, 0.25)
    start = rng.uniform(-0.4, 0.0)
    for i in range(6):
        left = start + 0.30 * i
        stage.fill(
            [
                (left, top + 0.16),
                (left + 0.13, top + 0.16),
                (left + 0.16 + lean, 1.0),
                (left + lean - 0.02, 1.0),
            ],
            stage.near((188, 188, 184), 0.06),
        )
    stage.rect(0.0, top, 1.0, top + 0.03, (150, 148, 144))
    if rng.random() < 0.5:
        _parked_car(stage, rng.uniform(-0.1, 1.1), top + 0.08)
    _passers_by(stage, top + 0.05, 2)


PLACES: dict[str, Callable[[Stage, float], None]] = {
    "street": _street,
    "wall": _wall,
    "shop": _shop,
    "park": _park,
    "hall": _hall,
    "crossing": _crossing,
}
