"""Cuts people out of frames, and judges which crops are worth keeping."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finegrain.cameras.boxes import Box, inside
from finegrain.cameras.stream import Frame

MARGIN = 0.05
"""Margin around a box, as a share of its sides."""

LEAST_HEIGHT, LEAST_WIDTH = 48, 16
DARKEST = 24.0
"""Least mean of the brightest channel, of 255."""

_EDGE = 0.004  # of a side of the frame
_STANDING = 1.2  # least height of a standing person, in widths

Reason = Literal["too_small", "too_dark", "cut"]
"""Why a crop is left out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PersonCrop:
    """A person in one frame.

    Attributes:
        time, seconds, clock: As in the frame.
        pixels: RGB, uint8 ``[h, w, 3]``, at the resolution of the camera.
        box: Left, top, width and height of the pixels in the frame.
        score: Confidence of the detector.
        quality: Sharpness times the square root of the height; a larger value is better.
    """

    time: datetime
    seconds: float
    clock: str
    pixels: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    score: float
    quality: float


def crop_of(frame: Frame, box: Box) -> PersonCrop | Reason:
    """Cut a box, which must overlap its frame, out with a margin; or the reason not to."""
    height, width = frame.pixels.shape[:2]
    if box.height < LEAST_HEIGHT or box.width < LEAST_WIDTH:
        return "too_small"
    if _is_cut(box, width, height):
        return "cut"
    dx, dy = MARGIN * box.width, MARGIN * box.height
    wider = Box(box.x - dx, box.y - dy, box.width + 2 * dx, box.height + 2 * dy)
    place = inside(wider, width, height)
    assert place is not None
    x, y, w, h = place
    # Without the copy, a small crop would keep its whole frame in memory.
    pixels = frame.pixels[y : y + h, x : x + w].copy()
    if _brightness(pixels) < DARKEST:
        return "too_dark"
    return PersonCrop(
        time=frame.time,
        seconds=frame.seconds,
        clock=frame.clock,
        pixels=pixels,
        box=place,
        score=1.0 if box.score is None else box.score,
        quality=_sharpness(pixels) * h**0.5,
    )


def _is_cut(box: Box, width: int, height: int) -> bool:
    """Whether the edge cuts off a side, the head, or more than the legs of a person."""
    dx, dy = _EDGE * width, _EDGE * height
    if box.x <= dx or box.x + box.width >= width - dx or box.y <= dy:
        return True
    return box.y + box.height >= height - dy and box.height < _STANDING * box.width


def _brightness(pixels: NDArray[np.uint8]) -> float:
    """Mean of the brightest channel."""
    # Several times faster than a maximum over an axis of length 3.
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return float(np.maximum(np.maximum(red, green), blue).mean())


def _sharpness(pixels: NDArray[np.uint8]) -> float:
    """Mean change between neighbouring pixels of the green channel, relative to the contrast."""
    green = pixels[..., 1].astype(np.float32)
    change = np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean()
    return float(change / (green.std() + 1.0))
