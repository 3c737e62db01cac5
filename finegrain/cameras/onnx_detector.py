"""Runs ONNX detectors of common kinds."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from finegrain.bounded.file import read_bounded
from finegrain.bounded.onnx_files import reads_files
from finegrain.cameras.boxes import Box
from finegrain.cameras.onnx_heads import Detections, Head, Preparation, recognised
from finegrain.errors import CameraError, require

MAX_BYTES = 1 << 31
LEAST_SCORE = 0.1
"""Least score of a box; the tracker starts tracks with higher ones only."""

_OVERLAP = 0.6
_DEFAULT_SIDE = 640
_PAD = 114
_SLACK = 2.0  # boxes reach outside of the picture, but not by its size


class _Placement(NamedTuple):
    """Where the picture is in the input: ``input = original * scale + offset`` by axis (x, y)."""

    scale: tuple[float, float]
    offset: tuple[float, float]


class OnnxDetector:
    """A detector of people from an ONNX file; see :mod:`finegrain.cameras.onnx_heads`.

    The kind is recognised from the outputs for a grey picture, which are also checked.

    Args:
        path: Path of the file.
        person: Number of the class ``person``. By default it is the one that the file names, 1
            for RF-DETR, or 0.
        threads: Number of CPU threads of one detection.

    Raises:
        CameraError: The file cannot be run, or is not a detector of a known kind.
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self, path: Path, *, person: int | None = None, threads: int = 1) -> None:
        self._cv2 = require("cv2", "cameras")
        self._path = path
        self._session = self._started(threads)
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._size = self._input_size()
        grey = np.full((*self._size, 3), 127, np.uint8)
        # The outputs for a grey picture hardly depend on how it is prepared.
        outputs = self._outputs(grey, Preparation(fit="stretch"))[0]
        head = recognised(self._inputs, outputs, self._size)
        if head is None:
            shown = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
            raise CameraError(
                f"{path}: expected the outputs of RT-DETR, D-FINE, RF-DETR, YOLOX or ultralytics, "
                f"got {shown}. Pass a function that calls this detector."
            )
        self._head: Head = head
        self.person = self._person() if person is None else person
        self._check_on(grey)

    @property
    def kind(self) -> str:
        """Name of the kind of detector."""
        return self._head.name

    def __call__(self, pixels: NDArray[np.uint8]) -> Sequence[Box]:
        detections, placement = self._detections(pixels)
        keep = detections.scores >= LEAST_SCORE
        corners, scores = detections.corners[keep].astype(np.float64), detections.scores[keep]
        if not self._head.in_original_pixels:
            corners -= np.tile(placement.offset, 2)
            corners /= np.tile(placement.scale, 2)
        boxes = [
            Box(x0, y0, x1 - x0, y1 - y0, score=float(score))
            for (x0, y0, x1, y1), score in zip(corners.tolist(), scores, strict=True)
        ]
        if not self._head.overlaps or len(boxes) < 2:
            return boxes
        kept = self._cv2.dnn.NMSBoxes(
            [list(box[:4]) for box in boxes], scores.tolist(), LEAST_SCORE, _OVERLAP
        )
        return [boxes[i] for i in np.ravel(kept)]

    def _started(self, threads: int) -> Any:
        data = read_bounded(self._path, MAX_BYTES, CameraError)
        try:
            if reads_files(data):
                raise CameraError(
                    f"{self._path} reads its weights from other files. Export it as one file."
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 4
            return onnxruntime.InferenceSession(
                data, options, providers=onnxruntime.get_available_providers()
            )
        except CameraError:
            raise
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise CameraError(
                f"{self._path} cannot be run by ONNX Runtime: {error!s:.200}"
            ) from error

    def _input_size(self) -> tuple[int, int]:
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4 or (shape[1] not in (3, "3") and isinstance(shape[1], int)):
            raise CameraError(
                f"{self._path}: expected pictures [N, 3, H, W] as its first input, got {shape}"
            )
        height, width = (side if isinstance(side, int) else _DEFAULT_SIDE for side in shape[2:])
        return height, width

    def _person(self) -> int:
        names = self._session.get_modelmeta().custom_metadata_map.get("names")
        if names is not None:  # ultralytics writes {0: 'person', ...}
            try:
                by_number = dict(ast.literal_eval(names))
            except (ValueError, SyntaxError, TypeError):
                by_number = {}
            for number, name in by_number.items():
                if name == "person":
                    return int(number)
            raise CameraError(f"{self._path}: none of its classes is named person: {names:.200}")
        return 1 if self._head.name == "RF-DETR" else 0

    def _check_on(self, pixels: NDArray[np.uint8]) -> None:
        """Check that the boxes of a picture can be right.

        Raises:
            CameraError: They are not finite, or far outside, or scores are not from 0 to 1.
        """
        try:
            detections, _ = self._detections(pixels)
        except (IndexError, KeyError, ValueError) as error:
            raise CameraError(
                f"{self._path}: its outputs do not fit {self.kind}, or it has no class "
                f"{self.person}. Pass a function that calls this detector."
            ) from error
        likely = detections.corners[detections.scores >= LEAST_SCORE]
        inside = np.abs(likely) <= _SLACK * max(self._size)
        scores = detections.scores
        if not (inside.all() and ((scores >= -1e-3) & (scores <= 1 + 1e-3)).all()):
            raise CameraError(
                f"{self._path}: expected boxes inside of the picture and scores from 0 to 1 of "
                f"{self.kind}, got others. Export it again, or pass a function that calls it."
            )

    def _detections(self, pixels: NDArray[np.uint8]) -> tuple[Detections, _Placement]:
        outputs, placement = self._outputs(pixels, self._head.preparation)
        return self._head.detections(outputs, self.person, self._size), placement

    def _outputs(
        self, pixels: NDArray[np.uint8], preparation: Preparation
    ) -> tuple[dict[str, NDArray[np.float32]], _Placement]:
        picture, placement = self._prepared(pixels, preparation)
        values = {self._inputs[0]: picture}
        if len(self._inputs) > 1:
            values[self._inputs[1]] = np.asarray([pixels.shape[1::-1]], np.int64)
        try:
            results = self._session.run(None, values)
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise CameraError(f"{self._path} cannot be run on a picture: {error!s:.200}") from error
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, results, strict=True)), placement

    def _prepared(
        self, pixels: NDArray[np.uint8], how: Preparation
    ) -> tuple[NDArray[np.float32], _Placement]:
        height, width = self._size
        scales = (width / pixels.shape[1], height / pixels.shape[0])
        if how.fit != "stretch":
            scales = (min(scales), min(scales))
        size = (round(pixels.shape[1] * scales[0]), round(pixels.shape[0] * scales[1]))
        resized = self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_LINEAR)
        left, top = 0, 0
        if how.fit == "centre":
            left, top = (width - size[0]) // 2, (height - size[1]) // 2
        padded = np.full((height, width, 3), _PAD, np.uint8)
        padded[top : top + size[1], left : left + size[0]] = resized
        values = padded[..., ::-1] if how.bgr else padded
        mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
        scaled = (values * np.float32(how.scale) - mean) / std
        planes = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)
        return planes, _Placement(scales, (float(left), float(top)))
