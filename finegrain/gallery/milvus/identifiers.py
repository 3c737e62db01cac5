"""Ids that several writers assign without coordination."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime

_EPOCH = 1_767_225_600  # 2026-01-01T00:00:00Z
_COUNTER_BITS = 12
_WRITER_BITS = 20


def first_id_at(moment: datetime) -> int:
    """The lowest id that any writer assigns from a moment on, by its own clock."""
    return (int(moment.timestamp()) - _EPOCH) << (_WRITER_BITS + _COUNTER_BITS)


class IdSource:
    """Ascending 63-bit ids, made of the second, the number of the writer, and a counter.

    There are 4096 ids per second and writer; after these, the source uses ids of the next second
    ahead of time. The number of a writer is random and drawn when the gallery is opened. Two
    writers in the same second have the same number with a probability of one in a million. Ids
    of different writers are ordered by their clocks, to the second.

    Args:
        clock: Returns seconds since 1970; tests replace it.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._writer = secrets.randbits(_WRITER_BITS)
        self._next = 1  # so that ids are above zero
        self._lock = threading.Lock()

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` ids."""
        with self._lock:
            now = (int(self._clock()) - _EPOCH) << _COUNTER_BITS
            first = max(self._next, now)
            self._next = first + count
        return [self._id(position) for position in range(first, first + count)]

    def _id(self, position: int) -> int:
        second, counter = divmod(position, 1 << _COUNTER_BITS)
        return (second << _WRITER_BITS | self._writer) << _COUNTER_BITS | counter
