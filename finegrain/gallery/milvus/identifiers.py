"""Ids that any number of writers give without asking each other."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

_EPOCH = 1_767_225_600  # 2026-01-01T00:00:00Z
_COUNTER_BITS = 12
_WRITER_BITS = 20


class IdSource:
    """Ascending 63-bit ids: the second, then a number of the writer, then a counter.

    A second's ids may be used up, 4096 of them; the source then goes on with those of the next
    one, ahead of time. The writer draws its number at random, so two that write within the
    same seconds share one in a million cases. As a source begins anew with every gallery that
    is opened, no id is given again. Ids of different writers are in the order of their
    clocks, to the second.

    Args:
        clock: Seconds since 1970; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._writer = secrets.randbits(_WRITER_BITS)
        self._next = 1  # so that ids are above zero
        self._lock = threading.Lock()

    def take(self, count: int) -> list[int]:
        """The next ids."""
        with self._lock:
            now = (int(self._clock()) - _EPOCH) << _COUNTER_BITS
            first = max(self._next, now)
            self._next = first + count
        return [self._id(position) for position in range(first, first + count)]

    def _id(self, position: int) -> int:
        second, counter = divmod(position, 1 << _COUNTER_BITS)
        return (second << _WRITER_BITS | self._writer) << _COUNTER_BITS | counter
