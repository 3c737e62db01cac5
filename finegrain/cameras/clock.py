"""Gives each frame a time, by the clock of its stream or by its arrival."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

ClockName = Literal["stream", "arrival"]
"""``stream``: the time stamps of the stream, from a known or observed start. ``arrival``: when the
frame arrived, or the rate of a file without time stamps."""

MAX_DRIFT = 2.0
"""Seconds by which a live stream may differ from the clock of this machine."""

MAX_GAP = 3600.0
"""Seconds between two frames of a file; a larger gap is a jump of its clock."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a frame was taken.

    Attributes:
        time: Time of the frame; it never decreases.
        seconds: Seconds since the first frame.
        clock: Where the time comes from.
    """

    time: datetime
    seconds: float
    clock: ClockName


class Clock:
    """The clock of one camera.

    Time stamps of a stream may be missing, start anywhere, or jump. The first frame is at the
    start, and a jump continues at the time of arrival (live) or one frame later (files).

    Args:
        start: Time of the first frame of a file; None for a live source, whose frames are taken
            when they arrive.
        step: Seconds between frames without time stamps.

    Attributes:
        num_jumps: How often the time stamps jumped.
    """

    def __init__(self, start: datetime | None, step: float = 0.04) -> None:
        self._start = start
        self._step = step
        self._first: datetime | None = start
        self._last: datetime | None = None
        self._offset: float | None = None  # seconds since the start at time stamp 0
        self.num_jumps = 0

    def stamp(self, pts: float | None, arrival: datetime) -> Stamp:
        """Time of the next frame.

        Args:
            pts: Time stamp of the stream in seconds, or None.
            arrival: When the frame arrived.
        """
        if self._first is None:
            self._first = arrival
        elapsed = (arrival - self._first).total_seconds()
        if self._start is not None:
            elapsed = 0.0 if self._last is None else self._since(self._last) + self._step
        if pts is None:
            return self._at(elapsed, "arrival")
        if self._offset is None:
            self._offset = elapsed - pts
        elif self._jumps(pts + self._offset, elapsed):
            self.num_jumps += 1
            self._offset = elapsed - pts
        return self._at(pts + self._offset, "stream")

    @property
    def tolerance(self) -> float:
        """Half of the seconds between frames: by how much a frame may come early."""
        return self._step / 2

    def restart(self) -> None:
        """Forget the time stamps: the stream was opened again."""
        self._offset = None

    def _since(self, time: datetime) -> float:
        assert self._first is not None
        return (time - self._first).total_seconds()

    def _jumps(self, stated: float, elapsed: float) -> bool:
        if self._start is None:
            return abs(stated - elapsed) > MAX_DRIFT
        last = 0.0 if self._last is None else self._since(self._last)
        return not last - self._step / 2 <= stated <= last + MAX_GAP

    def _at(self, seconds: float, clock: ClockName) -> Stamp:
        assert self._first is not None
        time = self._first + timedelta(seconds=seconds)
        if self._last is not None:
            time = max(time, self._last)
        self._last = time
        return Stamp(time, self._since(time), clock)
