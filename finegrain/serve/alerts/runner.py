"""Examines new pictures for standing queries, and sends their alarms to webhooks."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout
from starlette.concurrency import run_in_threadpool

from finegrain.errors import FinegrainError
from finegrain.gallery.sqlite.files import OWNER_ONLY
from finegrain.index.exact import Ids, Vectors
from finegrain.search.alerts.alert import Alert
from finegrain.search.searcher import Searcher
from finegrain.serve.alerts.addresses import IpNetwork
from finegrain.serve.alerts.book import Alarm, AlertBook, Examined, Standing
from finegrain.serve.alerts.webhook import send, wait_after
from finegrain.serve.collection import Collection

EVERY_SECONDS = 1.0
"""Seconds between two looks at the galleries."""

RETRY_SECONDS = 60.0
"""Seconds after which a query that cannot run, such as one of a missing column, is tried again."""

Allowed = Callable[[Standing], bool]
"""Whether the key that made a standing query is still valid."""

Record = Callable[[Standing, Sequence[int]], Coroutine[Any, Any, None]]
"""Notes in the audit log which pictures raised alarms."""

_log = logging.getLogger("finegrain.serve")


class AlertRunner:
    """Runs the standing queries of a file over the galleries of a service.

    One process runs a file. Another service with the same file only shows its alarms, until the
    first one has stopped.

    Args:
        book: The file; :meth:`close` closes it.
        collections: The galleries by name.
        networks: Networks inside that webhooks may lead to.
        allowed: Whether the key that made a query is still valid.
        record: Notes alarms in the audit log.
    """

    def __init__(
        self,
        book: AlertBook,
        collections: Mapping[str, Collection],
        *,
        networks: Sequence[IpNetwork],
        allowed: Allowed,
        record: Record,
    ) -> None:
        self.book = book
        self.networks = networks
        self._collections = collections
        self._allowed = allowed
        self._record = record
        # Any thread may look whether it is held.
        self._held = FileLock(f"{book.path}.lock", mode=OWNER_ONLY, thread_local=False)
        self._alerts: dict[Standing, Alert] = {}
        self._searchers: dict[str, Searcher] = {}
        self._not_before: dict[Standing, float] = {}
        self._senders: dict[Standing, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._faults: dict[str, str] = {}
        self._refusals: dict[str, str] = {}

    def start(self) -> None:
        """Begin to examine pictures, in the running event loop."""
        self._tasks.add(asyncio.create_task(self._run()))

    async def close(self) -> None:
        """Stop. What was not delivered is in the file, and is sent after the next start."""
        for task in (*self._tasks, *self._senders.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._senders.values(), return_exceptions=True)
        await run_in_threadpool(self._held.release)
        await run_in_threadpool(self.book.close)

    def alert(self, name: str) -> Alert | None:
        """The running query of a name; None if it does not run here, or not yet."""
        return next((a for standing, a in self._alerts.items() if standing.name == name), None)

    def fault(self, name: str) -> str | None:
        """Why a query does not run, or why its webhook did not accept an alarm."""
        return self._faults.get(name) or self._refusals.get(name)

    async def news(self, seconds: float) -> None:
        """Wait for new alarms, up to some seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def message(self, alarm: Alarm, standing: Standing, where: str | None) -> bytes | None:
        """An alarm as JSON; None if its picture was deleted, or is not in a part of the gallery."""
        collection = self._collections[standing.gallery]
        rows = await collection.read(lambda gallery: gallery.rows([alarm.picture], where))
        if not rows:
            return None
        columns = ("id", "pid", "camera", "time", "track", "added_at")
        picture = {name: getattr(rows[0], name) for name in columns}
        return json.dumps(
            {
                "type": "alarm",
                "timestamp": alarm.at,
                "data": {
                    "number": alarm.number,
                    "alert": alarm.name,
                    "query": standing.query,
                    "gallery": standing.gallery,
                    "score": alarm.score,
                    "min_score": alarm.least,
                    "picture": {**picture, "metadata": dict(rows[0].metadata)},
                },
            }
        ).encode()

    # --- examining ----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                if await run_in_threadpool(self._hold):
                    await self._look()
            except Exception:
                # One bad look must not end all later ones.
                _log.exception("alerts were not examined; the next attempt is in a second")
            await asyncio.sleep(EVERY_SECONDS)

    def _hold(self) -> bool:
        """Whether this process runs the file."""
        if not self._held.is_locked:
            with suppress(Timeout):
                self._held.acquire(timeout=0)
        return self._held.is_locked

    async def _look(self) -> None:
        every = await run_in_threadpool(self.book.all)
        active = [one for one in every if one.gallery in self._collections and self._allowed(one)]
        for gone in self._alerts.keys() - set(active):
            del self._alerts[gone]
            self._faults.pop(gone.name, None)
        self._forget_other_plans()
        for standing in active:
            if standing not in self._alerts:
                await self._open(standing)
        self._renew_senders(active)
        raised = 0
        for collection in self._collections.values():
            running = {s: a for s, a in self._alerts.items() if s.gallery == collection.name}
            if running:
                raised += await self._examine(collection, running)
        if raised:
            self._news.set()
            self._news = asyncio.Event()

    def _forget_other_plans(self) -> None:
        """Drop the alerts of a gallery whose plan was reloaded; they are opened again."""
        for name, collection in self._collections.items():
            if self._searchers.get(name) is not collection.searcher:
                self._searchers[name] = collection.searcher
                self._alerts = {s: a for s, a in self._alerts.items() if s.gallery != name}

    async def _open(self, standing: Standing) -> None:
        """Make a query ready to run; if it cannot run, note why and try again later."""
        now = asyncio.get_running_loop().time()
        if now < self._not_before.get(standing, -math.inf):
            return
        collection = self._collections[standing.gallery]
        progress = (await run_in_threadpool(self.book.progress)).get(standing.name)
        if progress is None:  # removed meanwhile
            return
        try:
            alert = await collection.run(
                lambda: opened(collection.searcher, standing, progress.examined)
            )
        except FinegrainError as error:
            self._faults[standing.name] = str(error)
            self._not_before[standing] = now + RETRY_SECONDS
            return
        if progress.examined is None:
            first = Examined(name=standing.name, last=alert.after, least=alert.min_score, alarms=[])
            await run_in_threadpool(self.book.examined, [first])
        self._alerts[standing] = alert
        self._faults.pop(standing.name, None)

    async def _examine(self, collection: Collection, running: Mapping[Standing, Alert]) -> int:
        """Examine the pictures that were added since the last look; return the number of alarms."""
        raised = 0
        chunks = collection.gallery.added_after(min(alert.after for alert in running.values()))
        while (chunk := await run_in_threadpool(next, chunks, None)) is not None:
            done = []
            for standing, alert in running.items():
                if standing not in self._alerts:
                    continue
                try:
                    done.append(await self._examined(standing, alert, chunk))
                except FinegrainError as error:
                    # What was not recorded is examined again, by an alert that is opened again.
                    self._forget([standing], error)
            if collection.searcher is not self._searchers[collection.name]:
                return raised  # scores of another plan; the pictures are examined again
            try:
                await run_in_threadpool(self.book.examined, done)
            except FinegrainError as error:
                self._forget(running, error)
                return raised
            raised += sum(len(one.alarms) for one in done)
        return raised

    async def _examined(
        self, standing: Standing, alert: Alert, chunk: tuple[Ids, Vectors]
    ) -> Examined:
        alarms = await run_in_threadpool(alert.examine, *chunk)
        if alarms:
            await self._record(standing, [row.id for _, row in alarms])
        return Examined(
            name=standing.name,
            last=alert.after,
            least=alert.min_score,
            alarms=[(hit.id, hit.score) for hit, _ in alarms],
        )

    def _forget(self, standings: Iterable[Standing], error: FinegrainError) -> None:
        for standing in standings:
            self._alerts.pop(standing, None)
            self._faults[standing.name] = str(error)

    # --- sending ------------------------------------------------------------------------------

    def _renew_senders(self, active: Sequence[Standing]) -> None:
        """Run one sender for each webhook, so that one that hangs delays no other."""
        wanted = {standing for standing in active if standing.webhook is not None}
        for standing in self._senders.keys() - wanted:
            self._senders.pop(standing).cancel()
        for standing in wanted:
            if standing not in self._senders or self._senders[standing].done():
                self._senders[standing] = asyncio.create_task(self._send_all(standing))

    async def _send_all(self, standing: Standing) -> None:
        """Send the alarms of a query one after the other, each until it is accepted."""
        failures = 0
        while True:
            try:
                await self._send_waiting(standing)
                failures = 0
                self._refusals.pop(standing.name, None)
                await self.news(EVERY_SECONDS)
            except FinegrainError as error:
                failures += 1
                self._refusals[standing.name] = f"the webhook did not accept an alarm: {error}"
                await asyncio.sleep(wait_after(failures))

    async def _send_waiting(self, standing: Standing) -> None:
        secret = await run_in_threadpool(self.book.secret, standing.name)
        if secret is None or standing.webhook is None:  # removed meanwhile
            return
        while waiting := await run_in_threadpool(self.book.undelivered, standing.name):
            for alarm in waiting:
                body = await self.message(alarm, standing, standing.where)
                if body is not None:
                    message = f"{standing.made_at}-{alarm.number}"
                    await send(standing.webhook, secret, message, body, self.networks)
                await run_in_threadpool(self.book.deliver, alarm)


def opened(searcher: Searcher, standing: Standing, after: int | None) -> Alert:
    """The alert of a standing query.

    Args:
        searcher: Searches its gallery.
        standing: The query.
        after: Id of the last picture that was examined; None begins with the next that is added.
    """
    return searcher.alert(
        standing.query,
        false_alarms_per_day=standing.false_alarms_per_day,
        min_score=standing.min_score,
        pictures_per_day=standing.pictures_per_day,
        where=standing.where,
        avoid=standing.avoid,
        per=standing.per,
        after=after,
    )
