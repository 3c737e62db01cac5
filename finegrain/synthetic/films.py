"""Films of synthetic people who walk past several cameras, with ground truth.

Each camera has a fixed background and a pillar. People cross its view on straight paths, walk
behind the pillar and behind each other, leave, and return later. The truth of a film are the boxes
of all visible people and the moments at which each person is there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from finegrain.errors import DataError
from finegrain.synthetic import scene as backgrounds
from finegrain.synthetic.body import Frame, trunk
from finegrain.synthetic.canvas import Canvas, Pixels
from finegrain.synthetic.figure import Figure
from finegrain.synthetic.person import Identity
from finegrain.synthetic.pose import pose
from finegrain.synthetic.render import check_size, develop, draw_figure
from finegrain.synthetic.view import CAMERAS, Camera, View

FILM_SIZE = (240, 320)
LEAST_VISIBLE = 0.3
"""Share of a person that must be visible for a box in the truth."""

_SPRITE_UNIT = 160  # pixels of an average person; larger than in most films
_PHASES = 12
_STEPS_PER_SECOND = 0.9
_PILLAR_WIDTH = 0.06
_SPEED = (0.14, 0.24)  # widths of the picture in a second
_HIDDEN = 255


class Place(NamedTuple):
    """A place on the ground: column as a share of the width, and depth from 0 (far) to 1 (near)."""

    x: float
    depth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One person who crosses the view of one camera.

    Attributes:
        number: Number of the walk in its scene: the identity of a track.
        begin, end: Where it begins and ends; it may be outside of the picture.
        start, stop: When it begins and ends, in seconds from the start of the film.
    """

    number: int
    identity: Identity
    camera: str
    begin: Place
    end: Place
    start: float
    stop: float

    def at(self, time: float) -> Place | None:
        """Where the person is; None before and after the walk."""
        if not self.start <= time < self.stop:
            return None
        share = (time - self.start) / (self.stop - self.start)
        return Place(*(a + share * (b - a) for a, b in zip(self.begin, self.end, strict=True)))

    @property
    def yaw(self) -> float:
        """Direction of the person in radians, as in a :class:`View`."""
        return math.atan2(self.end.x - self.begin.x, self.end.depth - self.begin.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmedScene:
    """What several cameras see during the same time.

    Attributes:
        seconds: Length of each film.
        rate: Frames a second.
        size: Height and width of the pictures.
    """

    cameras: tuple[Camera, ...]
    walks: tuple[Walk, ...]
    seconds: float
    rate: int
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPerson:
    """A person in a frame.

    Attributes:
        walk: Number of the walk.
        pid: Number of the identity.
        box: Left, top, width and height in pixels, of the whole person inside the picture.
        visible: Share of the person that nothing hides and the edge does not cut off.
    """

    walk: int
    pid: int
    box: tuple[int, int, int, int]
    visible: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilmFrame:
    """A frame with its truth.

    Attributes:
        time: Seconds from the start of the film.
        pixels: RGB, uint8 ``[H, W, 3]``.
        people: The people of whom at least :data:`LEAST_VISIBLE` is visible.
    """

    time: float
    pixels: Pixels
    people: tuple[SeenPerson, ...]


class SeenMoment(NamedTuple):
    """From when to when a camera sees a person on one walk, in seconds."""

    camera: str
    pid: int
    walk: int
    start: float
    end: float


def filmed_scene(
    people: Sequence[Identity],
    *,
    num_cameras: int = 2,
    seconds: float = 20.0,
    rate: int = 10,
    size: tuple[int, int] = FILM_SIZE,
    seed: int = 0,
) -> FilmedScene:
    """A scene in which each person passes each camera, and the first one a second time.

    Raises:
        DataError: There are no people or not enough cameras, or a number is out of range.
    """
    check_size(size)
    if not people or not 1 <= num_cameras <= len(CAMERAS) or not 1 <= rate <= 120 or seconds < 10:
        raise DataError(
            f"expected people, 1 to {len(CAMERAS)} cameras, 1 to 120 frames a second and 10 or "
            f"more seconds; got {len(people)}, {num_cameras}, {rate} and {seconds}"
        )
    rng = random.Random(f"finegrain/{seed}/films")
    cameras = CAMERAS[:num_cameras]
    walks: list[Walk] = []
    for identity in people:
        route = rng.sample(cameras, num_cameras)
        # Nobody is in two places at once.
        turn = seconds / (num_cameras + 1)
        for visit, camera in enumerate([*route, route[0]]):
            span = (visit * turn, (visit + 1) * turn)
            walks.append(_random_walk(rng, len(walks), identity, camera, span))
    return FilmedScene(
        cameras=cameras, walks=tuple(walks), seconds=seconds, rate=rate, size=size, seed=seed
    )


def _random_walk(
    rng: random.Random,
    number: int,
    identity: Identity,
    camera: Camera,
    span: tuple[float, float],
) -> Walk:
    """A walk across the whole view within a span of time."""
    ends = [Place(-0.2, rng.uniform(0.1, 0.9)), Place(1.2, rng.uniform(0.1, 0.9))]
    if rng.random() < 0.5:
        ends.reverse()
    duration = min(span[1] - span[0], 1.4 / rng.uniform(*_SPEED))
    start = rng.uniform(span[0], span[1] - duration)
    return Walk(
        number=number,
        identity=identity,
        camera=camera.name,
        begin=ends[0],
        end=ends[1],
        start=start,
        stop=start + duration,
    )


def film(scene: FilmedScene, camera: Camera) -> Iterator[FilmFrame]:
    """Draw the film of one camera; the same bytes for the same scene."""
    height, width = scene.size
    view = _view(camera, 0.0, 0.0, f"finegrain/{scene.seed}/film/{camera.name}")
    empty = backgrounds.background(view, width, height, 0.75)
    pillar = _pillar(scene, camera)
    walks = [walk for walk in scene.walks if walk.camera == camera.name]
    for number in range(round(scene.seconds * scene.rate)):
        time = number / scene.rate
        pixels, owner = empty.copy(), np.zeros((height, width), np.uint8)
        there = [(place, walk) for walk in walks if (place := walk.at(time)) is not None]
        areas = {}
        pillar_is_drawn = False
        for place, walk in sorted(there, key=lambda item: item[0].depth):
            if place.depth > pillar.depth and not pillar_is_drawn:
                _draw_pillar(pixels, owner, pillar)
                pillar_is_drawn = True
            areas[walk.number] = _draw_walker(pixels, owner, walk, place, time, camera)
        if not pillar_is_drawn:
            _draw_pillar(pixels, owner, pillar)
        grain = replace(view, scene_seed=f"{view.scene_seed}/{number}")
        people = (
            SeenPerson(
                walk=walk.number,
                pid=walk.identity.pid,
                box=box,
                visible=float(np.count_nonzero(owner == walk.number % _HIDDEN + 1)) / max(1, area),
            )
            for _, walk in there
            for box, area in [areas[walk.number]]
        )
        yield FilmFrame(
            time=time,
            pixels=develop(pixels, grain, scene.size),
            people=tuple(person for person in people if person.visible >= LEAST_VISIBLE),
        )


def seen_moments(
    scene: FilmedScene, frames: Iterable[FilmFrame], camera: Camera
) -> list[SeenMoment]:
    """The truth of a search for a time: when each walk is in the film of a camera."""
    times: dict[tuple[int, int], list[float]] = {}
    for frame in frames:
        for person in frame.people:
            times.setdefault((person.walk, person.pid), []).append(frame.time)
    return [
        SeenMoment(camera.name, pid, walk, seen[0], seen[-1] + 1 / scene.rate)
        for (walk, pid), seen in sorted(times.items())
    ]


def _ground(depth: float, height: int) -> float:
    return height * (0.62 + 0.35 * depth)


def _unit(depth: float, height: int) -> float:
    """Pixels of an average person at a depth."""
    return height * (0.34 + 0.36 * depth)


def _view(camera: Camera, yaw: float, phase: float, seed: str) -> View:
    return View(
        camera=camera,
        yaw=yaw,
        walking=True,
        phase=phase,
        fill=0.9,
        shift=0.0,
        cut=0.0,
        exposure=1.0,
        occluder=None,
        occluder_side=1,
        scene_seed=seed,
    )


def _pillar(scene: FilmedScene, camera: Camera) -> Place:
    rng = random.Random(f"finegrain/{scene.seed}/pillar/{camera.name}")
    return Place(rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.7))


def _draw_pillar(pixels: Pixels, owner: Pixels, pillar: Place) -> None:
    height, width = owner.shape
    left = round((pillar.x - _PILLAR_WIDTH / 2) * width)
    right = round((pillar.x + _PILLAR_WIDTH / 2) * width)
    ground = round(_ground(pillar.depth, height))
    shades = np.linspace(132, 84, right - left).astype(np.uint8)
    pixels[:ground, left:right] = shades[None, :, None]
    owner[:ground, left:right] = 0


def _draw_walker(
    pixels: Pixels, owner: Pixels, walk: Walk, place: Place, time: float, camera: Camera
) -> tuple[tuple[int, int, int, int], int]:
    """Draw a person over what is behind; returns the box in the picture, and the whole area."""
    height, width = owner.shape
    phase = round((time - walk.start) * _STEPS_PER_SECOND * _PHASES) % _PHASES
    color, cover = _sprite(walk.identity, camera, round(walk.yaw, 2), phase)
    scale = _unit(place.depth, height) / _SPRITE_UNIT
    size = (max(1, round(cover.shape[1] * scale)), max(1, round(cover.shape[0] * scale)))
    color = np.asarray(cv2.resize(color, size, interpolation=cv2.INTER_AREA))
    cover = np.asarray(cv2.resize(cover, size, interpolation=cv2.INTER_AREA))
    left = round(place.x * width - size[0] / 2)
    top = round(_ground(place.depth, height)) - size[1]
    area = int(np.count_nonzero(cover > 127))
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + size[0]), min(height, top + size[1])
    if x0 >= x1 or y0 >= y1:
        return (0, 0, 0, 0), area
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = cover[inside].astype(np.float32) / 255.0
    behind = pixels[y0:y1, x0:x1]
    behind[:] = cv2.blendLinear(np.ascontiguousarray(color[inside]), behind, alpha, 1.0 - alpha)
    owner[y0:y1, x0:x1][cover[inside] > 127] = walk.number % _HIDDEN + 1
    return (x0, y0, x1 - x0, y1 - y0), area


@lru_cache(maxsize=2048)
def _sprite(identity: Identity, camera: Camera, yaw: float, phase: int) -> tuple[Pixels, Pixels]:
    """Colours and cover of a walking person, cut to the person; the feet are at the lower edge."""
    person = identity.person
    view = _view(camera, yaw, math.tau * phase / _PHASES, "")
    tilt = math.radians(camera.pitch)
    side = 2 * _SPRITE_UNIT
    frame = Frame(
        turn=(math.cos(yaw), math.sin(yaw)),
        tilt=(math.cos(tilt), math.sin(tilt)),
        unit=_SPRITE_UNIT * person.stature,
        x=side / 2,
        ground=side * 0.85,
    )
    grey: Pixels = np.full((side, side, 3), 110, np.uint8)
    canvas = Canvas(grey, light=(0.8 * camera.light, 0.7), unit=frame.unit)
    draw_figure(
        Figure(person, pose(person, view), frame, canvas, trunk(person.gender, person.build))
    )
    rows = np.flatnonzero(canvas.cover.max(axis=1) > 127)
    columns = np.flatnonzero(canvas.cover.max(axis=0) > 127)
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(canvas.pixels[box]), np.ascontiguousarray(canvas.cover[box])
