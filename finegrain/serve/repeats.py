"""Requests that a client sends again after a lost answer.

A client chooses a key for a change and sends it in the header ``Idempotency-Key``
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/). A change with a key
that was seen before is not done again: its answer is the earlier one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

MOST_REMEMBERED = 10_000

T = TypeVar("T")


class Repeats:
    """Remembers the answers of recent changes, until the process ends."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._answers: OrderedDict[tuple[str, ...], asyncio.Future[Any]] = OrderedDict()

    async def once(
        self, client: str, route: str, key: str | None, run: Callable[[], Awaitable[T]]
    ) -> T:
        """The answer of ``run``, or the earlier answer of the same client, route and key.

        A change that failed is not remembered, so that it can be tried again.
        """
        if key is None:
            return await run()
        place = (client, route, key)
        if place not in self._answers:
            self._answers[place] = asyncio.ensure_future(run())
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        answer: asyncio.Future[T] = self._answers[place]
        try:
            # A client that hangs up must not cancel the change for the one that asks again.
            return await asyncio.shield(answer)
        except Exception:
            self._answers.pop(place, None)
            raise
