"""Counts what happened to the frames and people of each camera."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

STAGES = ("decode", "motion", "detect", "track", "encode", "store")
"""The stages of the pipeline, in order."""


class Counters:
    """Counts of one camera; any thread may add to them.

    Names used are ``frames`` (decoded), ``dropped`` (decoded too late), ``still`` (without motion),
    ``detected`` (frames given to the detector), ``boxes``, ``invalid_boxes``, ``masked``,
    ``too_small``, ``too_dark``, ``cut``, ``tracks``, ``crops`` (stored), ``reconnects`` and
    ``jumps`` (of its clock).

    Attributes:
        problem: The last problem of the camera; None if it works.
        failed: Whether the camera was given up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self.problem: str | None = None
        self.failed = False

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add_seconds(stage, perf_counter() - start)

    def add_seconds(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds  # type: ignore[assignment]

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def counts(self) -> dict[str, int]:
        """All counts above 0, by name."""
        with self._lock:
            return {name: count for name, count in sorted(self._counts.items()) if count}

    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage."""
        with self._lock:
            return {stage: float(self._seconds[stage]) for stage in STAGES}
