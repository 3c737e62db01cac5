"""Rate limits: a bucket of tokens for each key."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from finegrain.serve.problems import ServiceError

PICTURE_COST = 0.04
"""Cost of reading one picture, as a share of a search: a page of matches has 24 pictures."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimits:
    """Counts what each client does; a bucket refills evenly and holds one minute's worth.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def spend(self, client: str, per_minute: int, cost: float) -> None:
        """Take the cost of a request from a client's bucket.

        Args:
            client: Name of the key.
            per_minute: Searches and changes that the key allows in a minute.
            cost: 1 for a search with one query or for a change.

        Raises:
            ServiceError: The bucket does not hold the cost; status 429, with ``Retry-After``.
        """
        cost = min(cost, per_minute)  # a request that a full bucket cannot pay would never pass
        now = self._clock()
        with self._lock:
            bucket = self._buckets.setdefault(client, _Bucket(per_minute, now))
            refilled = (now - bucket.filled_at) * per_minute / 60
            bucket.tokens = min(per_minute, bucket.tokens + refilled)
            bucket.filled_at = now
            if bucket.tokens >= cost:
                bucket.tokens -= cost
                return
            seconds = math.ceil((cost - bucket.tokens) * 60 / per_minute)
        raise ServiceError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"The key allows {per_minute} searches and changes in a minute. Send this request "
            f"again in {seconds} s.",
            {"Retry-After": str(seconds)},
        )
