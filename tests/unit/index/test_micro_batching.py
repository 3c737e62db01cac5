"""Callers that wait at the same time share one run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from finegrain.index.micro_batching import MicroBatcher

PATIENCE = 30


class Doubler:
    """Doubles numbers when the test allows it; the first run waits for ``go``."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.started = threading.Event()
        self.go = threading.Event()

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.runs.append(list(requests))
        self.started.set()
        assert self.go.wait(PATIENCE)
        if -1 in requests:
            raise ValueError("-1 cannot be doubled")
        if -2 in requests:
            raise KeyboardInterrupt
        return [2 * request for request in requests]


def batcher_of(doubler: Doubler, most: int = 4) -> MicroBatcher[int, int]:
    return MicroBatcher(doubler, lambda request: 1, most)


def queue(batcher: MicroBatcher[int, int], threads: ThreadPoolExecutor, requests: Sequence[int]):
    """Futures of requests that are queued one after another."""
    futures = []
    for request in requests:
        waiting = len(batcher._waiting)
        futures.append(threads.submit(batcher, request))
        pause = threading.Event()
        for _ in range(1000 * PATIENCE):
            if len(batcher._waiting) > waiting:
                break
            pause.wait(0.001)
    return futures


def test_a_caller_alone_runs_at_once():
    doubler = Doubler()
    doubler.go.set()
    batcher = batcher_of(doubler)
    assert [batcher(1), batcher(2)] == [2, 4]
    assert doubler.runs == [[1], [2]]


def test_callers_that_wait_share_runs_of_a_bounded_size_in_order():
    doubler = Doubler()
    batcher = batcher_of(doubler)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher, 0)
        assert doubler.started.wait(PATIENCE)
        others = queue(batcher, threads, range(1, 8))
        doubler.go.set()
        assert [future.result(PATIENCE) for future in (first, *others)] == list(range(0, 16, 2))
    assert doubler.runs == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_only_the_caller_at_fault_gets_an_error():
    doubler = Doubler()
    batcher = batcher_of(doubler)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher, 0)
        assert doubler.started.wait(PATIENCE)
        others = queue(batcher, threads, [1, -1, 3])
        doubler.go.set()
        assert first.result(PATIENCE) == 0
        assert [others[0].result(PATIENCE), others[2].result(PATIENCE)] == [2, 6]
        with pytest.raises(ValueError, match="cannot be doubled"):
            others[1].result(PATIENCE)
    assert batcher(5) == 10


def test_an_interrupted_run_leaves_its_other_requests_to_the_next_caller():
    doubler = Doubler()
    batcher = batcher_of(doubler)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher, 0)
        assert doubler.started.wait(PATIENCE)
        others = queue(batcher, threads, [-2, 1, 2])
        doubler.go.set()
        assert first.result(PATIENCE) == 0
        with pytest.raises(KeyboardInterrupt):
            others[0].result(PATIENCE)
        assert [future.result(PATIENCE) for future in others[1:]] == [2, 4]
    assert doubler.runs == [[0], [-2, 1, 2], [1, 2]]
    assert batcher(5) == 10
