"""Detectors of known layouts, the motion gate, and crops."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from fixtures.onnx_detectors import SIZE, write_detector

from finegrain.cameras.boxes import Box, boxes_of
from finegrain.cameras.crops import PersonCrop, crop_of
from finegrain.cameras.detection import detector_of
from finegrain.cameras.motion import MotionGate
from finegrain.cameras.onnx_detector import OnnxDetector
from finegrain.cameras.people_detector import PeopleDetector
from finegrain.cameras.stream import Frame
from finegrain.errors import CameraError, ImageError, MissingExtraError

LAYOUTS = {
    "finished": "RT-DETR or D-FINE",
    "hugging_face": "RT-DETR or D-FINE",
    "rfdetr": "RF-DETR",
    "yolox": "YOLOX",
    "yolox_decoded": "YOLOX",
    "ultralytics": "ultralytics",
    "version5": "ultralytics version 5",
    "end_to_end": "ultralytics end to end",
}
NAMES = "{0: 'car', 1: 'person'}"


def detector(folder: Path, layout: str, **more) -> OnnxDetector:
    names = NAMES if layout == "ultralytics" else None
    return OnnxDetector(write_detector(folder / "d.onnx", layout, names=names, **more))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(96, 128), (240, 256), (120, 400)])
def test_a_bright_place_is_detected_where_it_is(tmp_path: Path, layout: str, size):
    opened = detector(tmp_path, layout)
    assert opened.kind == LAYOUTS[layout]
    height, width = size
    picture = np.full((height, width, 3), 60, np.uint8)
    x, y = round(0.7 * width), round(0.4 * height)
    picture[y - height // 4 : y + height // 4, x - width // 8 : x + width // 8] = 255
    boxes = opened(picture)
    assert boxes
    best = max(boxes, key=lambda box: box.score)
    assert best.score == pytest.approx(1, abs=0.01)
    centres = np.array([(b.x + b.width / 2, b.y + b.height / 2) for b in boxes if b.score > 0.9])
    cell = 16 * max(width / SIZE[1], height / SIZE[0])
    assert np.abs(centres.mean(axis=0) - (x, y)).max() < cell
    assert np.abs(centres - (x, y)).max() < height // 4 + 2 * cell
    if layout in ("finished", "hugging_face", "rfdetr"):
        scale = (width / SIZE[1], height / SIZE[0])
    else:
        scale = (max(width / SIZE[1], height / SIZE[0]),) * 2
    assert best[2:4] == pytest.approx((12 * scale[0], 24 * scale[1]), rel=0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dark_picture_has_no_people(tmp_path: Path, layout: str):
    assert detector(tmp_path, layout)(np.full((200, 300, 3), 80, np.uint8)) == []


def test_overlapping_boxes_of_a_person_become_one(tmp_path: Path):
    picture = np.full((*SIZE, 3), 60, np.uint8)
    picture[40:56, 48:64] = 255
    assert len(detector(tmp_path, "version5")(picture)) < 12  # of 12 bright cells, three times each


def test_unknown_and_impossible_outputs_are_refused(tmp_path: Path):
    with pytest.raises(CameraError, match=r"got heat \[1, 252\]"):
        detector(tmp_path, "unknown")
    bright = write_detector(tmp_path / "d.onnx", "end_to_end", scale=100.0)
    import onnx

    model = onnx.load(bright)
    for value in model.graph.initializer:  # all cells are detections
        if onnx.numpy_helper.to_array(value).shape == () and value.name == "c4":
            value.CopyFrom(onnx.numpy_helper.from_array(np.float32(-1), "c4"))
    onnx.save(model, bright)
    with pytest.raises(CameraError, match="expected boxes inside of the picture"):
        OnnxDetector(bright)
    with pytest.raises(CameraError, match="none of its classes is named person"):
        OnnxDetector(write_detector(bright, "ultralytics", names="{0: 'car'}"))
    with pytest.raises(CameraError, match="it has no class 7"):
        OnnxDetector(write_detector(bright, "ultralytics"), person=7)
    bright.write_bytes(b"no graph")
    with pytest.raises(CameraError, match="cannot be run by ONNX Runtime"):
        detector_of(bright)


@dataclass
class Detections:
    """The attributes of ``supervision.Detections``."""

    xyxy: np.ndarray
    confidence: np.ndarray | None = None
    tracker_id: np.ndarray | None = None


def test_functions_may_return_boxes_or_detections_of_supervision():
    sv = pytest.importorskip("supervision")
    xyxy, scores = np.array([[1.0, 2, 11, 32]]), np.array([0.5])
    expected = [Box(1, 2, 10, 30, score=0.5)]
    for result in (sv.Detections(xyxy=xyxy, confidence=scores), Detections(xyxy, scores)):
        assert detector_of(lambda pixels, result=result: result)(np.zeros((9, 9, 3))) == expected
    assert boxes_of(Detections(xyxy, tracker_id=np.array([4]))) == [Box(1, 2, 10, 30, 4)]
    assert detector_of(lambda pixels: [(1, 2, 3, 4)])(np.zeros((9, 9, 3))) == [Box(1, 2, 3, 4)]
    with pytest.raises(ImageError, match="expected boxes"):
        detector_of(lambda pixels: 7)(np.zeros((9, 9, 3)))


def test_other_choices_of_a_detector_are_refused(tmp_path: Path):
    for choice in (tmp_path / "absent.onnx", "faces", 3):
        with pytest.raises(CameraError, match="path of an ONNX detector"):
            detector_of(choice)


def test_the_built_in_detector_finds_people_of_a_film():
    if not hasattr(cv2, "HOGDescriptor"):
        with pytest.raises(MissingExtraError, match=r"finegrain\[cameras\]"):
            PeopleDetector()
        pytest.skip("this OpenCV has no people detector: it lacks the contributed modules")
    from finegrain.synthetic import film, filmed_scene, identities

    people = [p for p in identities(12, seed=3) if p.person.umbrella_color is None][:3]
    scene = filmed_scene(people, num_cameras=1, seconds=10, rate=2, size=(360, 480))
    hits = wanted = wrong = 0
    detect = PeopleDetector()
    for frame in film(scene, scene.cameras[0]):
        truth = [np.asarray(p.box) for p in frame.people if p.visible > 0.9]
        boxes = [np.asarray(box[:4]) for box in detect(frame.pixels) if box.score > 0.5]
        wanted += len(truth)
        hits += sum(any(overlap(box, person) > 0.4 for box in boxes) for person in truth)
        everybody = [np.asarray(p.box) for p in frame.people]
        wrong += sum(all(overlap(box, person) < 0.2 for person in everybody) for box in boxes)
    assert wanted > 10
    assert hits > 0.5 * wanted
    assert wrong < 0.5 * wanted
    assert detect(np.zeros((40, 40, 3), np.uint8)) == []


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(min=0)))
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_the_gate_passes_motion_and_looks_again_from_time_to_time():
    gate, rng = MotionGate(), np.random.default_rng(0)
    empty = rng.integers(80, 120, (180, 320, 3)).astype(np.uint8)

    def shown(person: int | None) -> np.ndarray:
        noisy = empty.astype(int) + rng.normal(0, 2, empty.shape)
        frame = noisy.clip(0, 255).astype(np.uint8)
        if person is not None:
            frame[60:120, person : person + 20] = 250
        return frame

    passed = [gate(shown(None), 0.1 * n, busy=False) for n in range(100)]
    assert passed[0]
    assert sum(passed[30:]) <= 1  # still frames, after the background was learnt
    walking = [gate(shown(5 * n), 10 + 0.1 * n, busy=True) for n in range(20)]
    assert all(walking)
    still = [gate(shown(None), 30 + 0.1 * n, busy=True) for n in range(40)]
    assert 3 <= sum(still) < 30
    # A change of resolution is no motion.
    big = cv2.resize(empty, (640, 360))
    assert not gate(big, 34.05, busy=False)


def frame_of(pixels: np.ndarray) -> Frame:
    return Frame(time=datetime(2026, 5, 1, tzinfo=UTC), seconds=0, clock="stream", pixels=pixels)


PICTURE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


def test_a_crop_has_a_margin_at_full_resolution():
    crop = crop_of(frame_of(PICTURE), Box(100, 50, 40, 100, score=0.8))
    assert isinstance(crop, PersonCrop)
    assert crop.box == (98, 45, 44, 110)
    assert np.array_equal(crop.pixels, PICTURE[45:155, 98:142])
    assert crop.pixels.base is None  # it does not keep its frame in memory
    assert crop.score == 0.8


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box(100, 50, 15, 100), "too_small"),
        (Box(100, 50, 40, 47), "too_small"),
        (Box(0, 50, 40, 100), "cut"),
        (Box(270, 50, 40, 100), "cut"),
        (Box(100, -5, 40, 100), "cut"),
        (Box(100, 150, 60, 60), "cut"),
    ],
)
def test_small_and_cut_people_are_left_out(box: Box, reason: str):
    assert crop_of(frame_of(PICTURE), box) == reason


def test_people_without_feet_are_kept_and_dark_ones_left_out():
    assert isinstance(crop_of(frame_of(PICTURE), Box(100, 80, 40, 130)), PersonCrop)
    assert crop_of(frame_of(PICTURE // 16), Box(100, 50, 40, 100)) == "too_dark"


def test_a_sharp_crop_is_better_than_a_blurred_one():
    sharp = crop_of(frame_of(PICTURE), Box(100, 50, 40, 100))
    blurred = crop_of(frame_of(cv2.GaussianBlur(PICTURE, (0, 0), 3)), Box(100, 50, 40, 100))
    assert sharp.quality > 2 * blurred.quality
