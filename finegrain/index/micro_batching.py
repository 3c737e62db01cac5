"""Callers that wait at the same time share one run."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class MicroBatcher(Generic[Request, Answer]):
    """Runs the requests of several threads together.

    The first caller runs its request at once. Requests that arrive meanwhile wait, and the first
    of these callers then runs them together, in the order of arrival. So one caller never waits
    for others to come, and nobody is overtaken.

    If a run raises an error, each of its requests runs again alone, so that only the caller whose
    request is at fault gets the error. If the thread of a run is interrupted, its other requests
    return to the front.

    Args:
        run: Answers some requests, in order. Only one run takes place at a time.
        size: The size of a request.
        most: Largest total size of a run. A larger request runs alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Sequence[Answer]],
        size: Callable[[Request], int],
        most: int,
    ) -> None:
        self._run = run
        self._size = size
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket[Request, Answer]] = deque()
        self._running = False

    def __call__(self, request: Request) -> Answer:
        """The answer to a request; raises what its run raised."""
        ticket = _Ticket[Request, Answer](request)
        with self._lock:
            self._waiting.append(ticket)
            if not self._running:
                self._running = True
                ticket.turn.set()
        try:
            ticket.turn.wait()
            if not ticket.done:
                self._lead()
        finally:
            if not ticket.done:
                self._give_up(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.answers[0]

    def _lead(self) -> None:
        """Run the first requests that wait, then let the next caller lead."""
        with self._lock:
            batch = [self._waiting.popleft()]
            total = self._size(batch[0].request)
            while self._waiting:
                total += self._size(self._waiting[0].request)
                if total > self._most:
                    break
                batch.append(self._waiting.popleft())
        try:
            self._answer(batch)
        finally:
            with self._lock:
                self._waiting.extendleft(one for one in reversed(batch) if not one.done)
            for one in batch:
                if one.done:
                    one.turn.set()
            # The leader is in front if it was interrupted; it then gives up, and passes on.
            if batch[0].done:
                self._pass_on()

    def _answer(self, batch: Sequence[_Ticket[Request, Answer]]) -> None:
        try:
            answers = self._run([one.request for one in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                for one in batch:
                    self._answer([one])
            return
        for one, answer in zip(batch, answers, strict=True):
            one.answers.append(answer)

    def _give_up(self, ticket: _Ticket[Request, Answer]) -> None:
        """Leave the queue, since this caller was interrupted."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            leads = ticket.turn.is_set() and not ticket.done
        if leads:
            self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].turn.set()
            else:
                self._running = False


class _Ticket(Generic[Request, Answer]):
    """A request that waits, and its outcome.

    ``turn`` is set when there is an outcome, or else when the caller shall lead.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.turn = threading.Event()
        self.answers: list[Answer] = []
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return bool(self.answers) or self.error is not None

    def fail(self, error: Exception) -> None:
        self.error = error
