"""Turns the frames of one camera into sightings of people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finegrain.cameras.boxes import Box, inside
from finegrain.cameras.camera import Camera
from finegrain.cameras.counters import Counters
from finegrain.cameras.crops import PersonCrop, crop_of
from finegrain.cameras.detection import Detect
from finegrain.cameras.feed import Tell
from finegrain.cameras.motion import MotionGate
from finegrain.cameras.stream import Frame
from finegrain.cameras.tracks import LOST_SECONDS, OpenTrack, Sighting, Tracker
from finegrain.cameras.zones import Point, Polygon
from finegrain.errors import require

_LARGEST = 4.0
"""Largest side of a box that can be right, in sides of the frame."""


class Analysis:
    """The frames of one camera, or of one film of a folder.

    Args:
        camera: The camera.
        detect: Detects people.
        counters: Counts of the camera.
        every: Usual seconds between frames.
        best: Number of crops to keep of a track.
        tell: Receives messages about problems.
    """

    def __init__(
        self,
        camera: Camera,
        detect: Detect,
        counters: Counters,
        *,
        every: float,
        best: int,
        tell: Tell,
    ) -> None:
        self._camera = camera
        self._detect = detect
        self._counters = counters
        self._best = best
        self._tell = tell
        self._gate = MotionGate()
        self._tracker = Tracker(every)
        self._open: dict[int, OpenTrack] = {}
        self._told = False

    def sightings(self, frame: Frame) -> Iterator[Sighting]:
        """Analyse a frame; gives the tracks that have ended, and parts of long ones."""
        if self._camera.hours is not None and frame.time not in self._camera.hours:
            self._counters.add("out_of_hours")
            yield from self.rest()
            return
        yield from self._ended(frame.seconds)
        pixels = masked(frame.pixels, self._camera.masks)
        with self._counters.timed("motion"):
            passes = self._gate(pixels, frame.seconds, busy=bool(self._open))
        if not passes:
            self._counters.add("still")
            return
        self._counters.add("detected")
        with self._counters.timed("detect"):
            boxes = self._detect(pixels)
        with self._counters.timed("track"):
            for number, box in self._tracker.update(self._valid(boxes, pixels), frame.seconds):
                self._add(number, box, frame, pixels)
        for track in self._open.values():
            if track.is_long:
                yield track.taken()

    def rest(self) -> Iterator[Sighting]:
        """The tracks that have not ended."""
        for track in self._open.values():
            yield track.taken()
        self._open.clear()

    def _ended(self, seconds: float) -> Iterator[Sighting]:
        for number, track in list(self._open.items()):
            if seconds - track.seconds > LOST_SECONDS:
                del self._open[number]
                yield track.taken()

    def _valid(self, boxes: list[Box], pixels: NDArray[np.uint8]) -> list[Box]:
        height, width = pixels.shape[:2]
        self._counters.add("boxes", len(boxes))
        valid = []
        for box in boxes:
            too_large = box.width > _LARGEST * width or box.height > _LARGEST * height
            if too_large or inside(box, width, height) is None:
                self._counters.add("invalid_boxes")
                if not self._told:
                    self._told = True
                    sides = ", ".join(f"{side:g}" for side in box[:4])
                    self._tell(
                        f"{self._camera.name}: the detector gave the box ({sides}) for a "
                        f"frame of {width} x {height} pixels, which cannot be right. Boxes are x, "
                        "y, width, height. Such boxes are left out."
                    )
            else:
                valid.append(box)
        return valid

    def _add(self, number: int, box: Box, frame: Frame, pixels: NDArray[np.uint8]) -> None:
        height, width = pixels.shape[:2]
        feet = Point((box.x + box.width / 2) / width, min(1.0, (box.y + box.height) / height))
        track = self._open.get(number)
        if track is None:
            self._counters.add("tracks")
            track = self._open[number] = OpenTrack.begun(
                self._camera.name, number, frame.time, frame.seconds, self._best
            )
        seen = Frame(time=frame.time, seconds=frame.seconds, clock=frame.clock, pixels=pixels)
        cut = crop_of(seen, box)
        crop = cut if isinstance(cut, PersonCrop) else None
        if not isinstance(cut, PersonCrop):
            self._counters.add(cut)
        track.add(crop, feet, frame.time, frame.seconds)


def masked(pixels: NDArray[np.uint8], masks: tuple[Polygon, ...]) -> NDArray[np.uint8]:
    """A frame whose masks are black, so that nothing of them is detected or kept."""
    if not masks:
        return pixels
    cv2 = require("cv2", "cameras")
    height, width = pixels.shape[:2]
    areas = [np.rint(np.asarray(mask) * (width, height)).astype(np.int32) for mask in masks]
    black = pixels.copy()
    for area in areas:  # overlapping areas in one call would cancel out
        cv2.fillPoly(black, [area], (0, 0, 0))
    return black
