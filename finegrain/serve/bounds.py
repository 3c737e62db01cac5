"""Middleware that bounds what a client may send, and refuses requests of other sites."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finegrain.serve.problems import problem

BODY_SECONDS = 30.0
"""Seconds within which a client must send the next part of a body."""

_LOCAL = ("localhost", "127.0.0.1", "::1")

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _BodyError(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BodyLimit:
    """Count the bytes of a body as they arrive, whatever ``Content-Length`` says.

    Args:
        app: The app behind.
        most_bytes: Largest body.
        seconds: Seconds within which the next part must arrive.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0
        complete = started = False
        refusal: _BodyError | None = None

        async def bounded() -> Message:
            nonlocal received, complete, refusal
            if complete:  # what follows a body is the end of the connection, which may take long
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._seconds)
            except TimeoutError:
                refusal = _BodyError(
                    HTTPStatus.REQUEST_TIMEOUT, f"no part of the body came in {self._seconds:g} s"
                )
                raise refusal from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._most_bytes:
                refusal = _BodyError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a body has at most {self._most_bytes} bytes here",
                )
                raise refusal
            return message

        async def unless_refused(message: Message) -> None:
            nonlocal started
            if refusal is None:
                started = True
                await send(message)

        # The framework may answer the error itself, with less detail.
        with suppress(_BodyError):
            await self._app(scope, bounded, unless_refused)
        if refusal is not None and not started:
            response = problem(refusal.status, refusal.detail, headers={"Connection": "close"})
            await response(scope, receive, send)


class SameSite:
    """Refuse changes that another web site makes a browser send, and names of other hosts.

    A browser sends ``Origin`` with every request that another site causes and that may change
    something. A service without keys also accepts only local names in ``Host``, since a foreign
    name may be made to point to this machine.

    Args:
        app: The app behind.
        local_only: Accept only ``localhost``, ``127.0.0.1`` and ``[::1]`` as the host.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "http" and (why := self._objection(Headers(scope=scope))):
            await problem(HTTPStatus.FORBIDDEN, why)(scope, receive, protected)
        else:
            await self._app(scope, receive, protected)

    def _objection(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self._local_only and _hostname(f"//{host}") not in _LOCAL:
            return (
                "Without keys, the service answers only to localhost. Make a key for other names."
            )
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return "The request comes from a page of another site."
        return None


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _netloc(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None
