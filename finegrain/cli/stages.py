"""The stages of a long job: which one runs, and how long the rest will take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stages:
    """Announces each stage of a job with an estimate of the time that is left in all.

    The estimate begins with what the stages took on a reference machine. Each stage that ends
    tells how fast this machine is, and corrects the estimate of those that follow.

    Args:
        reference: Seconds of each stage on the reference machine, in order.
        done: Share of a stage that an earlier run did already, where there is any.

    Attributes:
        seconds: Wall-clock time of each stage so far.
        cpu_seconds: Processor time of each stage so far, of this process and of its children.
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
        """Estimated seconds until the end of the last stage."""
        ahead = sum(s for name, s in self._expected.items() if name not in self.seconds)
        expected = sum(self._expected[name] for name in self.seconds)
        # A stage of a second or two says little of the machine.
        slowness = sum(self.seconds.values()) / expected if expected > _TELLING else 1.0
        return ahead * slowness

    @contextmanager
    def stage(self, name: str, about: str) -> Iterator[None]:
        """Announce a stage, and note how long it takes.

        Args:
            name: One of the reference's.
            about: What it does, in a few words.
        """
        number = f"{len(self.seconds) + 1}/{len(self._expected)}"
        print(f"\n[{number}] {name}: {about} ({_spoken(self.left)} left in all)", flush=True)
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.cpu_seconds[name] = _cpu_seconds() - cpu_start


_TELLING = 10.0
"""Expected seconds of stages from which the speed of a machine is judged."""


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {seconds / 60:.0f} min"
