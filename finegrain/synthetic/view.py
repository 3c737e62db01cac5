"""Views of a person: the cameras, and the settings of one picture."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from finegrain.synthetic.person import Identity

Gain = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One surveillance camera with its own place, angle and colours.

    Attributes:
        place: Background family, a key of `scene.PLACES`.
        pitch: Downward angle, in degrees.
        tint: Gain per RGB channel.
        light: Horizontal direction of the light source, -1 (left) to 1 (right).
        blur: Standard deviation of its blur, in picture heights times 1000.
        noise: Standard deviation of its noise, in grey levels.
        loose: Share of its pictures that are cropped loosely around the person.
    """

    name: str
    place: str
    pitch: float
    tint: Gain
    light: float
    blur: float
    noise: float
    loose: float


CAMERAS: tuple[Camera, ...] = (
    Camera(
        name="cam_1",
        place="street",
        pitch=9.0,
        tint=(1.02, 1.00, 0.97),
        light=-0.8,
        blur=2.5,
        noise=2.4,
        loose=0.15,
    ),
    Camera(
        name="cam_2",
        place="wall",
        pitch=13.0,
        tint=(0.96, 1.00, 1.04),
        light=0.7,
        blur=3.5,
        noise=3.2,
        loose=0.25,
    ),
    Camera(
        name="cam_3",
        place="shop",
        pitch=7.0,
        tint=(1.05, 1.00, 0.94),
        light=0.4,
        blur=2.0,
        noise=2.0,
        loose=0.1,
    ),
    Camera(
        name="cam_4",
        place="park",
        pitch=12.0,
        tint=(0.98, 1.02, 0.97),
        light=-0.5,
        blur=2.8,
        noise=2.4,
        loose=0.3,
    ),
    Camera(
        name="cam_5",
        place="hall",
        pitch=18.0,
        tint=(1.01, 0.99, 1.02),
        light=0.2,
        blur=3.2,
        noise=4.0,
        loose=0.45,
    ),
    Camera(
        name="cam_6",
        place="crossing",
        pitch=22.0,
        tint=(0.97, 0.98, 1.03),
        light=-0.3,
        blur=3.0,
        noise=3.2,
        loose=0.35,
    ),
)

_YAWS: tuple[tuple[float, float], ...] = (
    # (angle in degrees, odds); 0 looks into the camera, 90 walks to the right
    (0.0, 0.26),
    (35.0, 0.10),
    (-35.0, 0.10),
    (85.0, 0.12),
    (-85.0, 0.12),
    (145.0, 0.07),
    (-145.0, 0.07),
    (180.0, 0.16),
)
_SPREAD = 10.0
_OCCLUDERS = ("pole", "bench", "car", "passer-by", "bush")
_LOW_OCCLUDERS = ("bench", "car", "bush")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The settings of one picture.

    Attributes:
        yaw: Direction of the person in radians; 0 is towards the camera, positive turns
            to the right of the picture.
        phase: Position in the walking cycle, in radians.
        fill: Height of the average adult, as a share of the picture's.
        shift: Sideways offset of the person, as a share of the picture's width.
        cut: Share of the person's height that the lower edge cuts off.
        exposure: Gain of all channels.
        occluder: Object in front of the person, or None.
        occluder_side: -1 for left, 1 for right.
        scene_seed: Seed of the background.
    """

    camera: Camera
    yaw: float
    walking: bool
    phase: float
    fill: float
    shift: float
    cut: float
    exposure: float
    occluder: str | None
    occluder_side: int
    scene_seed: str

    @property
    def facing(self) -> str:
        """``front``, ``side`` or ``back``."""
        turn = abs(math.degrees(math.remainder(self.yaw, math.tau)))
        if turn <= 58.0:
            return "front"
        return "side" if turn < 118.0 else "back"

    @property
    def shows_shoes(self) -> bool:
        """Whether the feet are visible."""
        return self.cut == 0.0 and self.occluder not in _LOW_OCCLUDERS


def view_of(identity: Identity, picture: int, *, seed: int = 0) -> View:
    """The view of an identity's picture number ``picture`` (from 0).

    Pictures use the cameras in turn, from one that depends on the identity, so a person's
    first `len(CAMERAS)` pictures are by different cameras.
    """
    rng = random.Random(f"finegrain/{seed}/view/{identity.pid}/{picture}")
    start = random.Random(f"finegrain/{seed}/route/{identity.pid}").randrange(len(CAMERAS))
    camera = CAMERAS[(start + 5 * picture) % len(CAMERAS)]
    degrees = rng.choices([a for a, _ in _YAWS], [odds for _, odds in _YAWS])[0]
    # If partners differ in their shoes, these must be visible. Otherwise the captions would be
    # wrong.
    keeps_shoes = identity.swap is not None and "shoes" in identity.swap
    cut = 0.0
    if rng.random() < 0.12 and not keeps_shoes:
        cut = rng.uniform(0.05, 0.16)
    occluder = rng.choice(_OCCLUDERS) if rng.random() < 0.18 else None
    if keeps_shoes and occluder in _LOW_OCCLUDERS:
        occluder = None
    loose = rng.random() < camera.loose
    return View(
        camera=camera,
        yaw=math.radians(degrees + rng.uniform(-_SPREAD, _SPREAD)),
        walking=rng.random() < 0.72,
        phase=rng.uniform(0.0, math.tau),
        fill=rng.uniform(0.74, 0.82) if loose else rng.uniform(0.85, 0.94),
        shift=rng.gauss(0.0, 0.035),
        cut=cut,
        exposure=rng.uniform(0.90, 1.10),
        occluder=occluder,
        occluder_side=rng.choice((-1, 1)),
        scene_seed=f"finegrain/{seed}/scene/{identity.pid}/{picture}",
    )
