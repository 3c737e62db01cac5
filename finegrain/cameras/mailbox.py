"""A bounded queue between two stages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds a few items for the next stage.

    Args:
        capacity: Most items.
        drops: What happens to a new item when it is full: replace the oldest one, as for a live
            camera, or wait, as for a file.
    """

    def __init__(self, capacity: int, *, drops: bool = False) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._drops = drops
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Add an item.

        Returns:
            Whether an older item was dropped for it, or the mailbox is closed.
        """
        with self._changed:
            dropped = self._drops and len(self._items) >= self._capacity
            if dropped:
                self._items.popleft()
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return True
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def take(self, most: int = 1) -> list[T]:
        """Wait for an item, and take those that are there; empty once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """No more items are added; those that are there are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close it, and discard what is there."""
        with self._changed:
            self._items.clear()
        self.close()

    def __iter__(self) -> Iterator[T]:
        while items := self.take():
            yield items[0]
