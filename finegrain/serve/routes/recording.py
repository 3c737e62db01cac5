"""Records of what clients did, if the service has an audit log."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from finegrain.serve.access import Client
from finegrain.serve.audit import AuditLog

Record = Callable[[str, Client, dict[str, Any]], Awaitable[None]]


def _recorder(request: Request) -> Record:
    log: AuditLog | None = request.app.state.audit

    async def record(action: str, client: Client, details: dict[str, Any]) -> None:
        if log is not None:
            await run_in_threadpool(log.append, action, client.name, details)

    return record


Recorder = Annotated[Record, Depends(_recorder)]
"""``await record(action, client, details)`` returns when the record is durable. It comes before
the answer, so nothing is shown without a record."""
