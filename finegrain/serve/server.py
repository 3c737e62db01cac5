"""Runs the app of a service, and tells it when it must end long answers."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI

from finegrain.errors import FinegrainError

_log = logging.getLogger("finegrain.serve")


class Server(uvicorn.Server):
    """A server whose app ends its streams of events as soon as it should stop.

    Uvicorn waits for open requests before it tells the app to stop, and a stream has no end.
    """

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, **options))
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        """Reload all plans, as an operator asked by SIGHUP."""
        for name, reloader in self._app.state.reloaders.items():
            try:
                reloader.start(drop_unreadable=False)
            except FinegrainError as error:
                _log.warning("%s is not reloaded: %s", name, error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.stopping.set()
        await super().shutdown(sockets)


def run(app: FastAPI, **options: Any) -> None:
    """Serve an app until Ctrl-C or SIGTERM.

    Args:
        app: The app.
        options: Options of uvicorn.

    Raises:
        FinegrainError: The server could not start, for example as the port is in use.
    """
    server = Server(app, **options)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise FinegrainError(
            f"the service could not start at {options['host']}:{options['port']}; see the lines "
            "above, or choose another --port"
        )
