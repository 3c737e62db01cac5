"""Skips the detector on frames in which nothing moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import require

_SIZE = (160, 90)
_HISTORY = 100  # frames that the background is learnt from
_LEAST_SHARE = 0.002
"""Share of the picture that moves when a distant person walks: 29 of 14,400 pixels."""

_HOLD_SECONDS = 2.0
_REFRESH_BUSY, _REFRESH_EMPTY = 1.0, 10.0


class MotionGate:
    """Decides which frames the detector sees.

    It sees frames with motion against OpenCV's background model, those of the two seconds after,
    and one frame a second while somebody is tracked, since people also stand still; otherwise one
    every ten seconds.
    """

    def __init__(self) -> None:
        self._cv2 = require("cv2", "cameras")
        self._model: Any = self._cv2.createBackgroundSubtractorMOG2(
            history=_HISTORY, varThreshold=25, detectShadows=False
        )
        self._moved_at: float | None = None
        self._seen_at: float | None = None

    def __call__(self, pixels: NDArray[np.uint8], seconds: float, *, busy: bool) -> bool:
        """Whether to detect people in a frame.

        Args:
            pixels: RGB, uint8 ``[H, W, 3]``; the size may change.
            seconds: Time of the frame.
            busy: Whether somebody is tracked now.
        """
        small = self._cv2.resize(pixels, _SIZE, interpolation=self._cv2.INTER_AREA)
        gray = self._cv2.cvtColor(small, self._cv2.COLOR_RGB2GRAY)
        moving = self._model.apply(gray)
        if np.count_nonzero(moving) >= _LEAST_SHARE * moving.size:
            self._moved_at = seconds
        refresh = _REFRESH_BUSY if busy else _REFRESH_EMPTY
        passes = (
            self._seen_at is None
            or (self._moved_at is not None and seconds - self._moved_at <= _HOLD_SECONDS)
            or seconds - self._seen_at >= refresh
        )
        if passes:
            self._seen_at = seconds
        return passes
