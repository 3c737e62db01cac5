"""Chooses the detector of a call, and checks what it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.cameras.boxes import Box, Detector, boxes_of
from finegrain.cameras.onnx_detector import OnnxDetector
from finegrain.cameras.people_detector import PeopleDetector
from finegrain.errors import CameraError

BUILT_IN = "people"
"""Name of the detector that needs no file."""

DetectorChoice = str | Path | Detector | Callable[[NDArray[np.uint8]], Any]
"""``"people"``, the path of an ONNX detector, or a function of a frame."""

Detect = Callable[[NDArray[np.uint8]], list[Box]]


def detector_of(choice: DetectorChoice) -> Detect:
    """A function that several threads may call, which returns the boxes of people in a frame.

    Raises:
        CameraError: The choice is neither, or the ONNX file is not a known detector.
        MissingExtraError: OpenCV is not installed.
    """
    if choice == BUILT_IN:
        people = PeopleDetector()
        return _one_at_a_time(people)
    if isinstance(choice, str | Path):
        path = Path(choice)
        if path.suffix.lower() != ".onnx" or not path.is_file():
            raise CameraError(
                f"expected {BUILT_IN!r} or the path of an ONNX detector, got {str(choice)!r:.200}"
            )
        detector = OnnxDetector(path)
        return lambda pixels: list(detector(pixels))
    if callable(choice):
        return _one_at_a_time(choice)
    raise CameraError(
        f"expected {BUILT_IN!r}, the path of an ONNX detector or a function, got "
        f"{type(choice).__name__}"
    )


def _one_at_a_time(detector: Callable[[NDArray[np.uint8]], Any]) -> Detect:
    """Calls of one function, which may not be safe to call from several threads."""
    lock = threading.Lock()

    def detect(pixels: NDArray[np.uint8]) -> list[Box]:
        with lock:
            return boxes_of(detector(pixels))

    return detect
