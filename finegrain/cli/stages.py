"""Announces the stages of a long job and estimates the remaining time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stages:
    """Announces each stage of a job with an estimate of the total remaining time.

    The first estimate is the time of the stages on a reference machine. Each finished stage
    measures the speed of this machine and corrects the estimate.

    Args:
        reference: Seconds of each stage on the reference machine, in order.
        done: Share of a stage, 0 to 1, that an earlier run has done; 0 if missing.

    Attributes:
        seconds: Wall-clock time of each finished stage, in seconds.
        cpu_seconds: CPU time of each finished stage, of this process and its children.
    """

    def __init__(
        self, reference: Mapping[str, float], done: Mapping[str, float] | None = None
    ) -> None:
        done = done or {}
        self._expected = {name: (1 - done.get(name, 0.0)) * s for name, s in reference.items()}
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Estimated time until the end of the last stage, in seconds."""
        ahead = sum(s for name, s in self._expected.items() if name not in self.seconds)
        expected = sum(self._expected[name] for name in self.seconds)
        # Stages of one or two seconds are too short to measure the speed.
        slowdown = sum(self.seconds.values()) / expected if expected > _MIN_EXPECTED else 1.0
        return ahead * slowdown

    @contextmanager
    def stage(self, name: str, about: str) -> Iterator[None]:
        """Announce a stage, and measure its time.

        Args:
            name: Name of the stage in ``reference``.
            about: Short description.
        """
        number = f"{len(self.seconds) + 1}/{len(self._expected)}"
        print(f"\n[{number}] {name}: {about} ({_rounded(self.left)} left in all)", flush=True)
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.cpu_seconds[name] = _cpu_seconds() - cpu_start


_MIN_EXPECTED = 10.0
"""Minimum expected seconds of the finished stages for measuring the speed of the machine."""


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {seconds / 60:.0f} min"
