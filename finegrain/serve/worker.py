"""One thread that owns the model, a bounded queue before it, and batches of searches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from finegrain.search.matches import Matches
from finegrain.search.queries import Query
from finegrain.search.searcher import Searcher
from finegrain.serve.problems import ServiceError

MOST_WAITING = 256
"""Requests that may wait; further ones are refused with status 503."""

MOST_IN_BATCH = 16
BATCH_SECONDS = 0.002
"""How long a search waits for others to share its batch, if others are waiting."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of :meth:`Searcher.query`; searches with equal options form a batch."""

    k: int | None = None
    where: str | None = None
    group_by: str | None = None
    distinct: float | None = None
    offset: int = 0
    avoid: tuple[str, ...] = ()
    negation: bool = True
    min_probability: float | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Search:
    queries: Sequence[Query]
    options: Options
    answer: Future[list[Matches]] = field(default_factory=Future)


@dataclass(slots=True)
class _Call:
    run: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)


class Worker:
    """Runs searches and changes of one searcher, in the order of their arrival.

    Searches that wait together and have equal options are encoded and searched in one batch.

    Args:
        searcher: The searcher. The worker closes it.
        observe: Called with the size and the seconds of each batch of searches.
    """

    def __init__(
        self, searcher: Searcher, observe: Callable[[int, float], None] = lambda size, seconds: None
    ) -> None:
        self.searcher = searcher
        self._observe = observe
        self._waiting: queue.Queue[_Search | _Call | None] = queue.Queue(MOST_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="finegrain-worker", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of requests in the queue."""
        return self._waiting.qsize()

    def search(self, queries: Sequence[Query], options: Options) -> Future[list[Matches]]:
        """Search for one or several queries.

        Raises:
            ServiceError: The queue is full.
        """
        job = _Search(queries, options)
        self._put(job)
        return job.answer

    def call(self, run: Callable[[], T]) -> Future[T]:
        """Run a function in the worker's thread.

        Raises:
            ServiceError: The queue is full.
        """
        job = _Call(run)
        self._put(job)
        return job.answer

    def close(self, *, keep_open: bool = False) -> None:
        """Finish the requests that wait, then close the searcher unless it is to be kept open."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()
        if not keep_open:
            self.searcher.close()

    def _put(self, job: _Search | _Call) -> None:
        if self._closed:
            raise ServiceError(
                HTTPStatus.SERVICE_UNAVAILABLE, "The service is stopping.", {"Retry-After": "5"}
            )
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise ServiceError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_WAITING} requests are waiting already. Send this one again later.",
                {"Retry-After": "1"},
            ) from None

    def _run(self) -> None:
        job = self._waiting.get()
        while job is not None:
            if isinstance(job, _Call):
                _settle(job.answer, job.run)
                job = self._waiting.get()
            else:
                job = self._run_batch(job)

    def _run_batch(self, first: _Search) -> _Search | _Call | None:
        """Run a search and those that wait behind it with equal options; return the next job."""
        batch, size = [first], len(first.queries)
        end = time.monotonic() + BATCH_SECONDS
        following: _Search | _Call | None
        while True:
            try:
                # Without others in the queue, a search does not wait.
                following = self._waiting.get(
                    timeout=max(0.0, end - time.monotonic()) if len(batch) > 1 else 0
                )
            except queue.Empty:
                self._search_together(batch)
                return self._waiting.get()
            if (
                isinstance(following, _Search)
                and following.options == first.options
                and size + len(following.queries) <= MOST_IN_BATCH
            ):
                batch.append(following)
                size += len(following.queries)
            else:
                self._search_together(batch)
                return following

    def _search_together(self, batch: Sequence[_Search]) -> None:
        queries = [query for job in batch for query in job.queries]
        options = batch[0].options
        began = time.perf_counter()
        try:
            answers = iter(self.searcher.query(queries, **options.arguments()))
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for job in batch:  # an invalid query must not fail the others
                self._search_together([job])
            return
        self._observe(len(queries), time.perf_counter() - began)
        for job in batch:
            job.answer.set_result([next(answers) for _ in job.queries])


def _settle(answer: Future[Any], run: Callable[[], Any]) -> None:
    try:
        answer.set_result(run())
    except Exception as error:
        answer.set_exception(error)
