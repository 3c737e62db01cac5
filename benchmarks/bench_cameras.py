"""Frames a second of each stage of watching one camera, on one core.

The stages are those before the encoder (see ``bench_encode.py``) and the gallery. A frame of every
0.2 seconds is looked at, so the cameras of a core are a fifth of the frames a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import pytest

from finegrain.cameras.address import Address
from finegrain.cameras.boxes import Box
from finegrain.cameras.camera import Camera
from finegrain.cameras.counters import Counters
from finegrain.cameras.crops import crop_of
from finegrain.cameras.feed import Feed
from finegrain.cameras.mailbox import Mailbox
from finegrain.cameras.motion import MotionGate
from finegrain.cameras.people_detector import PeopleDetector
from finegrain.cameras.stream import Frame
from finegrain.cameras.tracks import Tracker
from finegrain.synthetic import film, filmed_scene, identities
from finegrain.synthetic.film_writer import write_film
from finegrain.synthetic.films import FilmFrame

RATE, SIZE = 5, (360, 640)


@pytest.fixture(scope="module")
def frames() -> list[FilmFrame]:
    scene = filmed_scene(identities(3), num_cameras=1, seconds=10, rate=RATE, size=SIZE)
    return list(film(scene, scene.cameras[0]))


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def measured(benchmark: Any, rounds: int, run: Callable[[], int], count: int) -> None:
    """Time a stage over all frames, and note the frames a second."""
    assert benchmark.pedantic(run, rounds=rounds, warmup_rounds=1) > 0
    if benchmark.enabled:
        benchmark.extra_info["frames_per_second"] = count / benchmark.stats["median"]


def test_decode(benchmark: Any, rounds: Any, frames: list[FilmFrame], tmp_path: Path) -> None:
    path = tmp_path / "gate.mp4"
    write_film(path, (frame.pixels for frame in frames), RATE)
    camera = Camera(name="gate", address=Address.of(path))

    def decode() -> int:
        mailbox: Mailbox[Frame] = Mailbox(len(frames) + 1)
        Feed(camera, mailbox, Counters(), Event(), every=0).run()
        return len(list(mailbox))

    measured(benchmark, rounds(10), decode, len(frames))


def test_motion(benchmark: Any, rounds: Any, frames: list[FilmFrame]) -> None:
    def gate() -> int:
        opened = MotionGate()
        return sum(opened(frame.pixels, frame.time, busy=True) for frame in frames)

    measured(benchmark, rounds(10), gate, len(frames))


def test_built_in_detector(benchmark: Any, rounds: Any, frames: list[FilmFrame]) -> None:
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip("this OpenCV has no people detector: it lacks the contributed modules")
    detect, some = PeopleDetector(), frames[::10]
    measured(benchmark, rounds(3), lambda: 1 + sum(len(detect(f.pixels)) for f in some), len(some))


def test_track_and_cut(benchmark: Any, rounds: Any, frames: list[FilmFrame]) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)

    def track() -> int:
        tracker, count = Tracker(1 / RATE), 0
        for frame in frames:
            seen = Frame(time=now, seconds=frame.time, clock="stream", pixels=frame.pixels)
            boxes = [Box(*person.box, score=0.9) for person in frame.people]
            for _, box in tracker.update(boxes, frame.time):
                count += crop_of(seen, box) is not None
        return count

    measured(benchmark, rounds(10), track, len(frames))
