from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.serve.problems import ServiceError
from finegrain.serve.rates import RateLimits


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_full_bucket_allows_a_minute_of_requests_at_once_and_then_says_when():
    limits = RateLimits(clock := Clock())
    for _ in range(60):
        limits.spend("gate", 60, 1)
    with pytest.raises(ServiceError, match="60 searches and changes in a minute") as refused:
        limits.spend("gate", 60, 1)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    limits.spend("shop", 60, 1)  # keys do not share a bucket
    clock.now += 1
    limits.spend("gate", 60, 1)


def test_a_request_above_the_limit_needs_a_full_bucket():
    limits = RateLimits(clock := Clock())
    limits.spend("gate", 2, 16)
    with pytest.raises(ServiceError) as refused:
        limits.spend("gate", 2, 16)
    assert refused.value.headers == {"Retry-After": "60"}
    clock.now += 60
    limits.spend("gate", 2, 16)


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 5)), max_size=60),
)
def test_no_minute_passes_more_than_two_buckets(per_minute, requests):
    limits = RateLimits(clock := Clock())
    passed = []
    for wait, cost in requests:
        clock.now += wait
        try:
            limits.spend("gate", per_minute, cost)
        except ServiceError:
            continue
        passed.append((clock.now, min(cost, per_minute)))
    for start, _ in passed:
        within = sum(cost for at, cost in passed if start <= at < start + 60)
        assert within <= 2 * per_minute + 1e-6
