"""Turns the outputs of common ONNX detectors into boxes and scores.

A head is recognised from the names and shapes of its inputs and outputs:

=========================  ====================================================================
RT-DETR, D-FINE (own)      inputs ``images`` and ``orig_target_sizes``; ``labels``, ``boxes``,
                           ``scores``: boxes are corners in pixels of the original picture
RT-DETR, D-FINE (Hugging   ``logits [N, Q, C]``, ``pred_boxes [N, Q, 4]``: centres and sizes as
Face), RF-DETR             shares of the picture; RF-DETR names them ``labels`` and ``dets``
YOLOX                      ``[N, A, 5 + C]``, one anchor a cell of strides 8, 16 and 32
ultralytics                ``[N, 4 + C, A]``; ``[N, A, 5 + C]`` with three anchors a cell (version
                           5); or ``[N, Q, 6]``: corners, score and class, without duplicates
=========================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))


class Detections(NamedTuple):
    """Detections of one class in one picture.

    Attributes:
        corners: Left, top, right and bottom, float32 ``[K, 4]``.
        scores: float32 ``[K]``.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a picture is prepared for a head.

    Attributes:
        fit: ``stretch`` to the input; or keep the proportions, with the padding at the right and
            bottom (``corner``) or on all sides (``centre``).
        scale: Factor of the pixel values, which are 0 to 255 before.
        mean, std: Normalisation of the scaled values.
        bgr: Blue comes first.
    """

    fit: str
    scale: float = 1 / 255
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    bgr: bool = False


class Head(Protocol):
    """Reads the outputs of one kind of detector."""

    @property
    def name(self) -> str: ...

    @property
    def preparation(self) -> Preparation: ...

    @property
    def in_original_pixels(self) -> bool:
        """Whether boxes are in pixels of the original picture; else in pixels of the input."""

    @property
    def overlaps(self) -> bool:
        """Whether one person may have several boxes."""

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        """Boxes of the class ``person`` of the first picture, for an input of height and width."""


@dataclass(frozen=True, slots=True)
class FinishedHead:
    """RT-DETR and D-FINE with their own post-processing."""

    name: str = "RT-DETR or D-FINE"
    preparation: Preparation = Preparation(fit="stretch")
    in_original_pixels: bool = True
    overlaps: bool = False

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        chosen = outputs["labels"][0] == person
        return Detections(outputs["boxes"][0][chosen], outputs["scores"][0][chosen])


@dataclass(frozen=True, slots=True)
class QueryHead:
    """Logits and boxes of queries, as of DETR.

    Attributes:
        logits, boxes: Names of the outputs.
    """

    logits: str
    boxes: str
    name: str
    preparation: Preparation
    in_original_pixels: bool = False
    overlaps: bool = False

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        scores = _sigmoid(outputs[self.logits][0][:, person])
        height, width = size
        centres = outputs[self.boxes][0] * np.asarray([width, height, width, height], np.float32)
        return Detections(_corners(centres), scores)


@dataclass(frozen=True, slots=True)
class YoloxHead:
    """YOLOX, whose boxes are relative to the cells unless the graph decodes them.

    Attributes:
        decoded: Whether boxes are in pixels of the input already.
    """

    decoded: bool
    output: str
    name: str = "YOLOX"
    preparation: Preparation = Preparation(fit="corner", scale=1.0, bgr=True)
    in_original_pixels: bool = False
    overlaps: bool = True

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        rows = outputs[self.output][0]
        boxes = rows[:, :4]
        if not self.decoded:
            cells, strides = grid(size, len(rows))
            boxes = np.concatenate(
                [(boxes[:, :2] + cells) * strides, np.exp(boxes[:, 2:].clip(max=20)) * strides], 1
            )
        return Detections(_corners(boxes), rows[:, 4] * rows[:, 5 + person])


@dataclass(frozen=True, slots=True)
class ClassesHead:
    """``ultralytics`` without objectness: ``[N, 4 + C, A]``."""

    output: str
    name: str = "ultralytics"
    preparation: Preparation = Preparation(fit="centre")
    in_original_pixels: bool = False
    overlaps: bool = True

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        columns = outputs[self.output][0]
        return Detections(_corners(columns[:4].T), columns[4 + person])


@dataclass(frozen=True, slots=True)
class AnchorsHead:
    """Version 5 of ``ultralytics``: ``[N, A, 5 + C]`` in pixels of the input."""

    output: str
    name: str = "ultralytics version 5"
    preparation: Preparation = Preparation(fit="centre")
    in_original_pixels: bool = False
    overlaps: bool = True

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        rows = outputs[self.output][0]
        return Detections(_corners(rows[:, :4]), rows[:, 4] * rows[:, 5 + person])


@dataclass(frozen=True, slots=True)
class CornersHead:
    """``ultralytics`` without duplicates: corners, score and class, ``[N, Q, 6]``."""

    output: str
    name: str = "ultralytics end to end"
    preparation: Preparation = Preparation(fit="centre")
    in_original_pixels: bool = False
    overlaps: bool = False

    def detections(self, outputs: Arrays, person: int, size: tuple[int, int]) -> Detections:
        rows = outputs[self.output][0]
        rows = rows[np.rint(rows[:, 5]) == person]
        return Detections(rows[:, :4], rows[:, 4])


def recognised(inputs: Sequence[str], outputs: Arrays, size: tuple[int, int]) -> Head | None:
    """The head of a detector from its outputs for one picture; None if it is unknown.

    Args:
        inputs: Names of the inputs.
        outputs: The outputs by name.
        size: Height and width of the input.
    """
    shapes = {name: array.shape for name, array in outputs.items()}
    if {"labels", "boxes", "scores"} <= shapes.keys() and len(inputs) == 2:
        return FinishedHead()
    for logits, boxes, name, preparation in (
        ("logits", "pred_boxes", "RT-DETR or D-FINE", Preparation(fit="stretch")),
        (
            "labels",
            "dets",
            "RF-DETR",
            Preparation(fit="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD),
        ),
    ):
        if logits in shapes and shapes.get(boxes) == (*shapes[logits][:2], 4):
            return QueryHead(logits, boxes, name, preparation)
    (name, array), *others = outputs.items()
    if others or array.ndim != 3:
        return None
    _, rows, columns = array.shape
    cells = {sum(_num_cells(size, strides)) for strides in _STRIDES}
    if rows in cells and columns > 5:
        return YoloxHead(_is_decoded(array[0], size), name)
    if columns in cells and rows > 4:
        return ClassesHead(name)
    if rows in {3 * count for count in cells} and columns > 5:
        return AnchorsHead(name)
    return CornersHead(name) if columns == 6 else None


def grid(size: tuple[int, int], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Left and top of each cell in cells, ``[A, 2]``, and its stride in pixels, ``[A, 1]``."""
    strides = next(s for s in _STRIDES if sum(_num_cells(size, s)) == count)
    cells, scales = [], []
    for stride in strides:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], 1))
        scales.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(scales).astype(np.float32)


def _num_cells(size: tuple[int, int], strides: Sequence[int]) -> list[int]:
    return [(size[0] // stride) * (size[1] // stride) for stride in strides]


def _is_decoded(rows: NDArray[np.float32], size: tuple[int, int]) -> bool:
    """Whether the centres of boxes are near their cells, rather than near 0."""
    cells, strides = grid(size, len(rows))
    from_cell = np.abs(rows[:, :2] - cells * strides) / strides
    return bool(np.median(from_cell) < np.median(np.abs(rows[:, :2])))


def _corners(centres: NDArray[np.float32]) -> NDArray[np.float32]:
    half = centres[:, 2:] / 2
    return np.concatenate([centres[:, :2] - half, centres[:, :2] + half], 1)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits.clip(-60, 60))), np.float32)
