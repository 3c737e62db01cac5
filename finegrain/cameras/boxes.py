"""Boxes of detections in a frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import ImageError


class Box(NamedTuple):
    """Bounding box of a detection in a frame. A tuple of the first four values is accepted, too.

    Attributes:
        x, y: Left and top, in pixels of the upright frame.
        width, height: Size in pixels.
        track: Track of a tracker. Trackers number the tracks of each camera from 0, so a number is
            stored with the name of the camera, or of the file if there is none.
        score: Confidence of the detector, stored as the column ``box_score``.
    """

    x: float
    y: float
    width: float
    height: float
    track: str | int | None = None
    score: float | None = None


BoxLike = Box | tuple[float, float, float, float]
Detector = Callable[[NDArray[np.uint8]], Sequence[BoxLike]]
"""Takes an upright RGB frame, uint8 ``[H, W, 3]``, and returns its boxes. It may also return
``supervision.Detections``."""


def boxes_of(detections: Any) -> list[Box]:
    """The boxes that a detector returned: a sequence of them, or ``supervision.Detections``.

    Raises:
        ImageError: They are neither.
    """
    if hasattr(detections, "xyxy"):
        return _of_supervision(detections)
    if not isinstance(detections, Sequence | np.ndarray):
        raise ImageError(
            "expected boxes (x, y, width, height) or supervision.Detections from a detector, got "
            f"{type(detections).__name__}"
        )
    return [checked_box(box) for box in detections]


def _of_supervision(detections: Any) -> list[Box]:
    corners = np.asarray(detections.xyxy, np.float64).reshape(-1, 4)
    scores = detections.confidence
    tracks = detections.tracker_id
    return [
        Box(
            x0,
            y0,
            x1 - x0,
            y1 - y0,
            track=None if tracks is None else int(tracks[number]),
            score=None if scores is None else float(scores[number]),
        )
        for number, (x0, y0, x1, y1) in enumerate(corners.tolist())
    ]


def checked_box(box_like: BoxLike) -> Box:
    """A box from four to six values.

    Raises:
        ImageError: They are not numbers.
    """
    try:
        box = Box(*box_like)
        numbers = all(isinstance(float(side), float) for side in box[:4])
    except (TypeError, ValueError):
        numbers = False
    if not numbers:
        raise ImageError(f"expected a box as x, y, width, height in pixels, got {box_like!r:.80}")
    return box


def inside(box: Box, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the part of a box inside its frame; None if it is empty."""
    sides = box[:4]
    if not all(map(math.isfinite, sides)) or box.width <= 0 or box.height <= 0:
        return None
    left, top = math.floor(max(0, box.x)), math.floor(max(0, box.y))
    right = math.ceil(min(width, box.x + box.width))
    bottom = math.ceil(min(height, box.y + box.height))
    if left >= right or top >= bottom:
        return None
    return left, top, right - left, bottom - top
