"""Follows people from frame to frame, and keeps the best crops of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from finegrain import times
from finegrain.cameras.boxes import Box
from finegrain.cameras.crops import PersonCrop
from finegrain.cameras.zones import Path, Point
from finegrain.errors import require

LOST_SECONDS = 2.0
"""How long a person may be hidden before the track ends."""

LONGEST_SECONDS = 60.0
"""After this time, what is kept of a track so far is stored, and the track continues."""

START_SCORE = 0.5
"""Least score of a detection that starts a track; lower ones continue it (ByteTrack)."""


class Tracker:
    """ByteTrack of the library ``trackers`` (Apache 2.0), for one camera.

    Args:
        every: Usual seconds between frames. Frames may come at any time.
    """

    def __init__(self, every: float) -> None:
        library = require("trackers", "cameras")
        self._detections = require("supervision", "cameras").Detections
        self._tracker = library.ByteTrackTracker(
            frame_rate=1 / max(every, 0.01),
            lost_track_buffer=round(30 * LOST_SECONDS),
            track_activation_threshold=START_SCORE,
            high_conf_det_threshold=START_SCORE,
            minimum_consecutive_frames=2,
        )

    def update(self, boxes: Sequence[Box], seconds: float) -> list[tuple[int, Box]]:
        """The number of the track of each box of a frame; boxes without one are left out."""
        corners = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in boxes]
        detections = self._detections(
            xyxy=np.asarray(corners, np.float32).reshape(-1, 4),
            confidence=np.asarray([1.0 if b.score is None else b.score for b in boxes], np.float32),
            data={"number": np.arange(len(boxes))},
        )
        tracked = self._tracker.update(detections, timestamp=seconds)
        numbers = tracked.tracker_id
        if numbers is None or len(tracked) == 0:
            return []
        rows = tracked.data["number"]
        return [
            (int(number), boxes[int(row)])
            for number, row in zip(numbers, rows, strict=True)
            if number >= 0
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What is kept of a track, or of a part of a long one.

    Attributes:
        track: Name of the track: ``camera/number/start``.
        start, end: When the track began, and when the person was last seen so far.
        crops: Its best crops, by time.
        path: Places of the feet, as shares of the picture.
    """

    track: str
    start: datetime
    end: datetime
    crops: tuple[PersonCrop, ...]
    path: Path


@dataclass(slots=True)
class OpenTrack:
    """A track that has not ended.

    Attributes:
        track: Its name.
        start, end: When the person was first and last seen.
        seconds: Time of the last frame with the person, in seconds.
    """

    track: str
    start: datetime
    end: datetime
    seconds: float
    most: int
    _since: float = 0.0
    _crops: list[PersonCrop] = field(default_factory=list)
    _path: Path = field(default_factory=Path)

    @classmethod
    def begun(
        cls, camera: str, number: int, time: datetime, seconds: float, most: int
    ) -> OpenTrack:
        """A new track.

        Args:
            most: Number of crops to keep.
        """
        begin = times.utc_text(time)
        return cls(f"{camera}/{number}/{begin}", time, time, seconds, most, seconds)

    @property
    def is_long(self) -> bool:
        """Whether what is kept should be stored now."""
        return self.seconds - self._since >= LONGEST_SECONDS

    def add(self, crop: PersonCrop | None, feet: Point, time: datetime, seconds: float) -> None:
        """Add the person in a later frame; without a crop if that is not worth keeping."""
        self.end, self.seconds = time, seconds
        self._path.steps.append((time, feet))
        if crop is not None:
            self._crops.append(crop)
            if len(self._crops) > self.most:
                self._crops.pop(_least_needed(self._crops))

    def taken(self) -> Sighting:
        """What is kept so far; the track continues without it."""
        sighting = Sighting(
            track=self.track,
            start=self.start,
            end=self.end,
            crops=tuple(self._crops),
            path=Path(self._path.steps),
        )
        # The last step stays, so that a line between two parts is crossed.
        self._crops, self._path, self._since = [], Path(self._path.steps[-1:]), self.seconds
        return sighting


def _least_needed(crops: Sequence[PersonCrop]) -> int:
    """Position of the worse of the two crops that are nearest in time."""
    gaps = np.diff([crop.seconds for crop in crops])
    first = int(np.argmin(gaps))
    return first if crops[first].quality <= crops[first + 1].quality else first + 1
