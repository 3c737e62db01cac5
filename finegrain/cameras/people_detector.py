"""OpenCV's people detector, which needs no file of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finegrain.cameras.boxes import Box
from finegrain.errors import MissingExtraError, require

_LONGEST_SIDE = 800
_MIDDLE, _STEEPNESS = 0.4, 5.0
_PADDING = 0.12  # its windows have a margin around the person
_OVERLAP = 0.4


class PeopleDetector:
    """Finds standing people by histograms of gradients (Dalal and Triggs, 2005).

    It finds people of 100 pixels and more whose whole body is visible, and misses many. Use it to
    try things out, and an ONNX detector for a camera.

    Raises:
        MissingExtraError: OpenCV is not installed, or is a build without this detector.
    """

    def __init__(self) -> None:
        self._cv2 = require("cv2", "cameras")
        if not hasattr(self._cv2, "HOGDescriptor"):
            raise MissingExtraError(
                "This OpenCV has no people detector: since version 5 it is in the contributed "
                'modules. Install them with: pip install "finegrain[cameras]", or pass an ONNX '
                "detector."
            )
        self._hog = self._cv2.HOGDescriptor()
        self._hog.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, pixels: NDArray[np.uint8]) -> Sequence[Box]:
        scale = min(1.0, _LONGEST_SIDE / max(pixels.shape[:2]))
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        gray = self._cv2.cvtColor(self._cv2.resize(pixels, size), self._cv2.COLOR_RGB2GRAY)
        if size[0] < 64 or size[1] < 128:
            return []
        places, weights = self._hog.detectMultiScale(
            gray, hitThreshold=0.0, winStride=(8, 8), scale=1.05
        )
        if len(places) == 0:
            return []
        scores = [1 / (1 + math.exp(_STEEPNESS * (_MIDDLE - w))) for w in np.ravel(weights)]
        kept = self._cv2.dnn.NMSBoxes([list(map(int, p)) for p in places], scores, 0.1, _OVERLAP)
        return [_tightened(places[i], scores[i], scale) for i in np.ravel(kept)]


def _tightened(place: NDArray[np.int32], score: float, scale: float) -> Box:
    x, y, width, height = (float(side) / scale for side in place)
    return Box(
        x + _PADDING * width,
        y + _PADDING / 2 * height,
        width * (1 - 2 * _PADDING),
        height * (1 - _PADDING),
        score=score,
    )
