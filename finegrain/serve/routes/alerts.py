"""Standing queries: making and removing them, and their alarms as server-sent events.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi import Query as Parameter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from finegrain.errors import QueryError
from finegrain.serve import schemas
from finegrain.serve.access import Access, Client, Reader
from finegrain.serve.alerts.addresses import Target, reachable
from finegrain.serve.alerts.book import Alarm, Progress, Standing
from finegrain.serve.alerts.runner import AlertRunner, opened
from finegrain.serve.collection import Chosen
from finegrain.serve.problems import ServiceError
from finegrain.serve.routes.recording import Recorder

MOST_OF_A_KEY = 50
"""Standing queries that one key may have."""

MOST_STREAMS = 64
MOST_STREAMS_OF_A_KEY = 8
HEARTBEAT_SECONDS = 15.0
"""Seconds of silence after which a stream sends a comment, which shows that it lives."""

LOOK_SECONDS = 1.0
"""Seconds between two looks for alarms of another process."""

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])


def _runner(request: Request) -> AlertRunner:
    runner: AlertRunner | None = request.app.state.alerts
    if runner is None:
        raise ServiceError(
            HTTPStatus.NOT_FOUND, "This service has no alerts. Start it with --alerts FILE."
        )
    return runner


Runner = Annotated[AlertRunner, Depends(_runner)]
Name = Annotated[str, Parameter(min_length=1, max_length=100)]


@router.get("")
async def alerts(client: Reader, runner: Runner, collection: Chosen) -> list[schemas.AlertOut]:
    """The standing queries that the key made; all of them for a key without a filter."""
    visible = await _visible(client, runner, collection.name)
    progress = await run_in_threadpool(runner.book.progress)
    return [
        schemas.AlertOut(**_fields(standing, progress[standing.name], runner))
        for standing in visible.values()
        if standing.name in progress
    ]


@router.post("")
async def make(
    body: schemas.AlertBody,
    request: Request,
    client: Reader,
    runner: Runner,
    collection: Chosen,
    record: Recorder,
) -> schemas.MadeAlertOut:
    """Make a standing query. Its filter includes that of the key."""
    client.spend(1)
    every = await run_in_threadpool(runner.book.all)
    if sum(one.owner == client.key for one in every) >= MOST_OF_A_KEY:
        raise QueryError(f"A key has up to {MOST_OF_A_KEY} alerts. Remove one first.")
    if body.webhook is not None:
        access: Access = request.app.state.access
        access.client(request, "write")
        await reachable(Target.of(body.webhook), runner.networks)
    standing = Standing.checked(
        body.name,
        body.query,
        gallery=collection.name,
        where=client.within(body.where),
        avoid=body.avoid,
        per=body.per,
        false_alarms_per_day=body.false_alarms_per_day,
        min_score=body.min_score,
        pictures_per_day=body.pictures_per_day,
        webhook=body.webhook,
        owner=client.key,
    )
    # A query that cannot run, such as one of a missing column, is refused now.
    alert = await collection.run(lambda: opened(collection.searcher, standing, None))
    details = {
        "gallery": collection.name,
        "alert": body.name,
        "queries": [body.query],
        "where": standing.where,
        "reason": body.reason,
    }
    await record("make alert", client, details)
    secret = await run_in_threadpool(runner.book.add, standing, alert.after)
    progress = (await run_in_threadpool(runner.book.progress))[standing.name]
    return schemas.MadeAlertOut(**_fields(standing, progress, runner), secret=secret)


@router.delete("")
async def remove(
    name: Name, client: Reader, runner: Runner, collection: Chosen, record: Recorder
) -> schemas.CountOut:
    """Remove a standing query with its alarms."""
    client.spend(1)
    await _checked(name, client, runner, collection.name)
    await record("remove alert", client, {"gallery": collection.name, "alert": name})
    await run_in_threadpool(runner.book.remove, name)
    return schemas.CountOut(count=1)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    request: Request,
    client: Reader,
    runner: Runner,
    collection: Chosen,
    name: Annotated[str | None, Parameter(max_length=100, description="Of one alert only.")] = None,
    after: Annotated[
        int | None,
        Parameter(ge=0, lt=2**63, description="Begin behind this alarm; 0 sends all kept ones."),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="The same, as browsers send it again.")
    ] = None,
) -> StreamingResponse:
    """Alarms as server-sent events, from now on or from an earlier one."""
    if name is not None:
        await _checked(name, client, runner, collection.name)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = int(last_event_id)
    if after is None:
        after = await run_in_threadpool(runner.book.last_number)
    streams: Counter[str | None] = request.app.state.streams
    if streams.total() >= MOST_STREAMS or streams[client.key] >= MOST_STREAMS_OF_A_KEY:
        raise ServiceError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"There are {MOST_STREAMS} streams already, or {MOST_STREAMS_OF_A_KEY} of this key. "
            "Close one.",
            {"Retry-After": "60"},
        )

    async def stream() -> AsyncIterator[bytes]:
        streams[client.key] += 1
        try:
            async for part in _events(request, client, runner, collection.name, name, after):
                yield part
        finally:
            streams[client.key] -= 1

    return StreamingResponse(stream(), media_type="text/event-stream")


async def _events(
    request: Request,
    client: Client,
    runner: AlertRunner,
    gallery: str,
    name: str | None,
    after: int,
) -> AsyncIterator[bytes]:
    """Parts of a stream, until the service stops or the key is revoked."""
    access: Access = request.app.state.access
    stopping: asyncio.Event = request.app.state.stopping
    now = asyncio.get_running_loop().time
    yield b"retry: 3000\n\n"
    said = now()
    while not stopping.is_set() and access.name_of(client.key) is not None:
        visible = await _visible(client, runner, gallery)
        names = visible if name is None else visible.keys() & {name}
        alarms = await run_in_threadpool(runner.book.alarms, names, after)
        for alarm in alarms:
            after = alarm.number
            body = await _message(alarm, visible[alarm.name], client, runner)
            if body is not None:
                yield b"id: %d\nevent: alarm\ndata: %s\n\n" % (alarm.number, body)
                said = now()
        if now() - said >= HEARTBEAT_SECONDS:
            yield b": \n\n"
            said = now()
        if not alarms:
            await runner.news(LOOK_SECONDS)


async def _message(
    alarm: Alarm, standing: Standing, client: Client, runner: AlertRunner
) -> bytes | None:
    return await runner.message(alarm, standing, client.within(standing.where))


async def _visible(client: Client, runner: AlertRunner, gallery: str) -> dict[str, Standing]:
    """The standing queries of a gallery that a client may see, by name."""
    return {
        standing.name: standing
        for standing in await run_in_threadpool(runner.book.all)
        if standing.gallery == gallery and (client.where is None or standing.owner == client.key)
    }


async def _checked(name: str, client: Client, runner: AlertRunner, gallery: str) -> None:
    if name not in await _visible(client, runner, gallery):
        raise ServiceError(HTTPStatus.NOT_FOUND, f"There is no alert named {name!r}.")


def _fields(standing: Standing, progress: Progress, runner: AlertRunner) -> dict[str, Any]:
    alert = runner.alert(standing.name)
    threshold = None if alert is None else alert.threshold
    return {
        "name": standing.name,
        "query": standing.query,
        "where": standing.where,
        "avoid": list(standing.avoid),
        "per": standing.per,
        "false_alarms_per_day": standing.false_alarms_per_day,
        "min_score": standing.min_score if alert is None else alert.min_score,
        "pictures_per_day": (
            standing.pictures_per_day if threshold is None else threshold.pictures_per_day
        ),
        "background": None if threshold is None else threshold.background,
        "webhook": None if standing.webhook is None else Target.of(standing.webhook).shown,
        "made_at": standing.made_at,
        "alarms": progress.alarms,
        "waiting": progress.waiting,
        "dropped": progress.dropped,
        "fault": runner.fault(standing.name),
    }
