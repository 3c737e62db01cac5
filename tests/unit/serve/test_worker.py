from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from finegrain.errors import QueryError
from finegrain.serve import worker as module
from finegrain.serve.problems import ServiceError
from finegrain.serve.worker import Options, Worker


class _Searcher:
    """Answers each query with itself, and waits while the gate is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.closed = False

    def query(self, queries, k, **options):
        self.entered.set()
        assert self.gate.wait(30)
        if "bad" in queries:
            raise QueryError("bad")
        self.batches.append(list(queries))
        return list(queries)

    def close(self):
        self.closed = True


@pytest.fixture
def searcher():
    return _Searcher()


@pytest.fixture
def worker(searcher):
    made = Worker(searcher)
    yield made
    searcher.gate.set()
    made.close()


def waiting_behind(worker, searcher, *jobs):
    """The answers of jobs that all wait while the first search runs."""
    first = worker.search(["first"], Options())
    assert searcher.entered.wait(30)
    answers = [worker.search(queries, options) for queries, options in jobs]
    searcher.gate.set()
    assert first.result(30) == ["first"]
    return answers


def test_searches_that_wait_share_a_batch(worker, searcher):
    jobs = [(["a"], Options()), (["b", "c"], Options()), (["d"], Options(k=3))]
    answers = waiting_behind(worker, searcher, *jobs)
    assert [answer.result(30) for answer in answers] == [["a"], ["b", "c"], ["d"]]
    assert searcher.batches == [["first"], ["a", "b", "c"], ["d"]]


def test_an_invalid_query_fails_alone(worker, searcher):
    jobs = [(["a"], Options()), (["bad"], Options()), (["c"], Options())]
    first, bad, last = waiting_behind(worker, searcher, *jobs)
    assert first.result(30) == ["a"]
    assert last.result(30) == ["c"]
    with pytest.raises(QueryError):
        bad.result(30)


def test_a_batch_is_bounded(worker, searcher):
    jobs = [(["a"] * 10, Options()), (["b"] * 10, Options())]
    for answer in waiting_behind(worker, searcher, *jobs):
        answer.result(30)
    assert list(map(len, searcher.batches)) == [1, 10, 10]


def test_a_full_queue_says_when_to_come_back(worker, searcher, monkeypatch):
    worker.search(["first"], Options())
    assert searcher.entered.wait(30)
    for _ in range(module.MOST_WAITING):
        worker.search(["x"], Options())
    with pytest.raises(ServiceError) as refused:
        worker.search(["x"], Options())
    assert refused.value.status == 503
    assert refused.value.headers == {"Retry-After": "1"}


def test_a_stop_finishes_what_waits(searcher):
    worker = Worker(searcher)
    first = worker.search(["first"], Options())
    change = worker.call(lambda: SimpleNamespace(done=True))
    searcher.gate.set()
    worker.close()
    assert first.result(0) == ["first"]
    assert change.result(0).done
    assert searcher.closed
    with pytest.raises(ServiceError, match="stopping"):
        worker.search(["late"], Options())
