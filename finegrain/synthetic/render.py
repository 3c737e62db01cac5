"""Renders a person in a view to a picture."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from finegrain.errors import DataError
from finegrain.synthetic import carried, head, lower, scene, upper
from finegrain.synthetic.body import Frame, Solid, trunk
from finegrain.synthetic.canvas import Canvas, Field, Pixels
from finegrain.synthetic.figure import Figure
from finegrain.synthetic.occluders import occlude
from finegrain.synthetic.person import Person
from finegrain.synthetic.pose import pose
from finegrain.synthetic.trim import UNTRIMMED, Trim
from finegrain.synthetic.view import View

SIZE = (128, 64)
_SUPERSAMPLING = 2
_MAX_SIDE = 2048
_NOISE_TILE = 1024


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture with its ground truth.

    Attributes:
        image: RGB, uint8 [H, W, 3].
        regions: Region of each pixel, uint8 ``[H, W]``: 0 for the background, otherwise one
            plus an index into ``slots``.
        slots: Names of the regions, such as ``upper`` or ``skin``.
    """

    image: Pixels
    regions: Pixels
    slots: tuple[str, ...]

    def mask(self, slot: str) -> NDArray[np.bool_]:
        """Pixels of a slot, bool ``[H, W]``; all False if it is not visible."""
        if slot not in self.slots:
            return np.zeros(self.regions.shape, bool)
        return np.asarray(self.regions == self.slots.index(slot) + 1)


def render(
    person: Person, view: View, *, size: tuple[int, int] = SIZE, trim: Trim = UNTRIMMED
) -> Pixels:
    """Draw one picture.

    Args:
        size: Height and width in pixels.
        trim: Trimming of one of the garments.

    Returns:
        RGB, uint8 [H, W, 3]; the same bytes for the same arguments.

    Raises:
        DataError: ``size`` is smaller than 32 x 16 or larger than 2048.
    """
    canvas = _draw(person, view, size, regions=False, trim=trim)
    return develop(canvas.pixels, view, size)


def render_with_regions(person: Person, view: View, *, size: tuple[int, int] = SIZE) -> Rendering:
    """Draw one picture and the region of each pixel; see `render`."""
    canvas = _draw(person, view, size, regions=True)
    assert canvas.regions is not None
    regions = cv2.resize(canvas.regions, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return Rendering(
        image=develop(canvas.pixels, view, size),
        regions=np.asarray(regions, np.uint8),
        slots=tuple(canvas.slots),
    )


def _draw(
    person: Person, view: View, size: tuple[int, int], *, regions: bool, trim: Trim = UNTRIMMED
) -> Canvas:
    check_size(size)
    height, width = (side * _SUPERSAMPLING for side in size)
    frame = _frame(person, view, height, width)
    feet = frame.ground / height
    canvas = Canvas(
        scene.background(view, width, height, feet),
        light=(0.8 * view.camera.light, 0.7),
        unit=frame.unit,
        regions=regions,
    )
    body = trunk(person.gender, person.build)
    figure = Figure(person, pose(person, view), frame, canvas, body, trim=trim)
    draw_figure(figure)
    _shade_ground(canvas, frame, view)
    occlude(canvas.pixels, view)
    return canvas


def _frame(person: Person, view: View, height: int, width: int) -> Frame:
    """The position of the person, so that the body and an umbrella fit in the picture."""
    top = 1.20 if person.umbrella_color is not None else 1.02
    # Half of the difference in stature remains, because crops follow the person's box.
    unit = view.fill * height * (0.5 + 0.5 * person.stature) / max(top / 1.02, 1.0)
    room = width / (0.66 if person.umbrella_color is not None else 0.50)
    unit = min(unit, room)
    tilt = np.radians(view.camera.pitch)
    tall = unit * top * float(np.cos(tilt))
    slack = max(height - tall, 0.0)
    ground = height - 0.42 * slack + view.cut * unit
    return Frame(
        turn=(float(np.cos(view.yaw)), float(np.sin(view.yaw))),
        tilt=(float(np.cos(tilt)), float(np.sin(tilt))),
        unit=unit,
        x=width * (0.5 + view.shift),
        ground=ground,
    )


def draw_figure(figure: Figure) -> None:
    """All parts of a person, from the farthest to the nearest."""
    person, frame = figure.person, figure.frame
    from_front = frame.turn[0] > 0.0
    if person.umbrella_color is not None and not from_front:
        carried.draw_umbrella_shaft(figure)
    if person.bag == "backpack" and from_front:
        carried.draw_backpack(figure)
    if from_front:
        head.draw_hair_behind(figure)
    far, near = _arms_by_depth(figure)
    for side in far:
        _draw_arm_and_bag(figure, side)
    lower.draw_legs(figure)
    if person.upper == "hoodie" and from_front:
        upper.draw_hood(figure)
    head.draw_neck(figure)
    solid = upper.upper_solid(figure)
    upper.draw_upper(figure)
    if person.bag == "backpack" and frame.turn[0] > -0.3:
        carried.draw_straps(figure, solid)
    if not (person.bag == "shoulder bag" and _bag_is_nearest(frame)):
        _draw_side_bag(figure, solid)
    for side in near:
        _draw_arm_and_bag(figure, side)
    if person.bag == "shoulder bag" and _bag_is_nearest(frame):
        _draw_side_bag(figure, solid)
    if person.bag == "backpack" and not from_front:
        carried.draw_backpack(figure)
    head.draw_head(figure)
    if not from_front:
        if person.upper == "hoodie":
            upper.draw_hood(figure)
        head.draw_hair_behind(figure)
    else:
        head.draw_front_strands(figure)
    if person.umbrella_color is not None:
        if from_front:
            carried.draw_umbrella_shaft(figure)
        carried.draw_umbrella(figure)


def _bag_is_nearest(frame: Frame) -> bool:
    return frame.turn[1] < 0.0


def _draw_side_bag(figure: Figure, solid: Solid) -> None:
    if figure.person.bag == "shoulder bag":
        carried.draw_shoulder_bag(figure, solid)


def _draw_arm_and_bag(figure: Figure, side: int) -> None:
    if side == 0 and figure.person.bag == "handbag":
        carried.draw_handbag(figure)
    upper.draw_arm(figure, side)


def _arms_by_depth(figure: Figure) -> tuple[list[int], list[int]]:
    """Arms behind the trunk, and arms in front of it."""
    depths = [float(figure.frame.depth(arm)[1:].mean()) for arm in figure.pose.arms]
    far = [side for side in (0, 1) if depths[side] < -0.012]
    near = sorted((side for side in (0, 1) if side not in far), key=lambda side: depths[side])
    return far, near


def _shade_ground(canvas: Canvas, frame: Frame, view: View) -> None:
    taken = scene.cast_shadow(canvas.cover, frame.ground, view.camera.light)
    free = 1.0 - canvas.cover * np.float32(1.0 / 255.0)
    gain = 1.0 - taken * free
    canvas.pixels[:] = cv2.blendLinear(
        canvas.pixels, np.zeros_like(canvas.pixels), gain, 1.0 - gain
    )


@lru_cache(maxsize=1)
def _noise_tile() -> Field:
    rng = np.random.default_rng(11)
    return rng.standard_normal((_NOISE_TILE, _NOISE_TILE, 3)).astype(np.float32)


def develop(pixels: Pixels, view: View, size: tuple[int, int]) -> Pixels:
    """Reduce to the requested size, and add the camera's colours, blur and noise."""
    height, width = size
    camera = view.camera
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    sigma = camera.blur * height / 1000.0
    if sigma > 0.25:
        small = cv2.GaussianBlur(small, (0, 0), sigma)
    rng = random.Random(f"{view.scene_seed}/grain")
    y, x = rng.randrange(_NOISE_TILE), rng.randrange(_NOISE_TILE)
    grain = np.take(
        np.take(_noise_tile(), range(y, y + height), axis=0, mode="wrap"),
        range(x, x + width),
        axis=1,
        mode="wrap",
    )
    gain = np.asarray(camera.tint, np.float32) * np.float32(view.exposure)
    result = small.astype(np.float32) * gain
    # Light from above: the upper part of a picture is slightly brighter.
    result *= np.linspace(1.04, 0.95, height, dtype=np.float32)[:, None, None]
    result += grain * np.float32(camera.noise)
    return np.asarray(np.clip(np.rint(result), 0.0, 255.0), np.uint8)


def check_size(size: tuple[int, int]) -> None:
    """Refuse sizes that cannot show a person.

    Raises:
        DataError: The size is too small or too large.
    """
    height, width = size
    if not (32 <= height <= _MAX_SIDE and 16 <= width <= _MAX_SIDE):
        raise DataError(
            f"size: expected (height, width) from (32, 16) to ({_MAX_SIDE}, {_MAX_SIDE}), "
            f"got {size!r}. The usual size is {SIZE}."
        )
