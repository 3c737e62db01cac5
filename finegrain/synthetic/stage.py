"""Painting of backgrounds and foregrounds, in coordinates relative to the picture's sides."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from finegrain.synthetic.canvas import Pixels
from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import disc

_SHIFT = 4
DULL: tuple[RGB, ...] = (
    (62, 64, 70),
    (96, 98, 104),
    (140, 136, 130),
    (84, 74, 66),
    (54, 66, 86),
    (122, 108, 94),
    (176, 172, 166),
    (70, 84, 74),
)
CARS: tuple[RGB, ...] = (
    (58, 60, 66),
    (168, 170, 174),
    (206, 206, 206),
    (96, 42, 42),
    (50, 66, 96),
    (30, 30, 34),
)


@dataclass(slots=True)
class Stage:
    """A background that is being painted, in coordinates relative to its width and height."""

    pixels: Pixels
    rng: random.Random

    def fill(self, corners: ArrayLike, color: RGB) -> None:
        """A polygon of one colour."""
        cv2.fillPoly(self.pixels, [self._fixed(corners)], color, cv2.LINE_AA, _SHIFT)

    def rect(self, left: float, top: float, right: float, bottom: float, color: RGB) -> None:
        """An upright rectangle of one colour."""
        self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def line(self, path: ArrayLike, color: RGB, width: int = 1) -> None:
        """A thin line."""
        cv2.polylines(self.pixels, [self._fixed(path)], False, color, width, cv2.LINE_AA, _SHIFT)

    def oval(self, x: float, y: float, rx: float, ry: float, color: RGB) -> None:
        """An ellipse of one colour."""
        self.fill(disc((x, y), (rx, ry)), color)

    def near(self, color: RGB, spread: float = 0.08) -> RGB:
        """A shade of a colour."""
        gain = 1.0 + self.rng.uniform(-spread, spread)
        red, green, blue = (int(min(255, channel * gain)) for channel in color)
        return red, green, blue

    def _fixed(self, path: ArrayLike) -> NDArray[np.int32]:
        height, width = self.pixels.shape[:2]
        scale = (width * (1 << _SHIFT), height * (1 << _SHIFT))
        return np.asarray(np.rint(np.asarray(path) * scale), np.int32)
