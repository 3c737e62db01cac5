"""The page of a searcher in this process, for a notebook or a shell.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

import threading
import time
import webbrowser
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Self

from fastapi import FastAPI
from pydantic import BaseModel, Field

from finegrain.errors import FinegrainError
from finegrain.search.searcher import Searcher
from finegrain.serve.app import Settings, create_app
from finegrain.serve.keys import SessionKeys
from finegrain.serve.problems import ServiceError
from finegrain.serve.server import Server

HOST = "127.0.0.1"


class _Code(BaseModel):
    code: str = Field(max_length=200)


class _Session(BaseModel):
    key: str


class Browsing:
    """A running page; it ends with the process, with :meth:`close` or at the end of a ``with``.

    The page listens on this machine only. Other users of the machine cannot read it: a link works
    once, and gives the browser a key that this process alone knows.

    Args:
        searcher: An open searcher with a gallery; it stays open.
        port: Port; 0 takes a free one.

    Attributes:
        address: The address of the page, without a key.

    Raises:
        GalleryError: There is no gallery.
        FinegrainError: The port is in use.
    """

    def __init__(self, searcher: Searcher, *, port: int = 0) -> None:
        self._keys = SessionKeys("read")
        app = create_app(searcher, Settings(keys=self._keys, read_only=True, keep_open=True))
        _add_session(app, self._keys)
        self._server = Server(app, host=HOST, port=port, log_level="error", access_log=False)
        self._thread = threading.Thread(target=self._run, name="finegrain-page", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise FinegrainError(f"the page could not start at port {port}; choose another")
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://{HOST}:{port}/"

    def link(self) -> str:
        """A new link to the page, which works once."""
        return f"{self.address}#once={self._keys.code()}"

    def close(self) -> None:
        """Stop the page."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        with suppress(SystemExit):  # uvicorn exits the program where it cannot bind
            self._server.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"the page is at {self.link()}  (the link works once)"

    def _repr_html_(self) -> str:
        link = self.link()
        return f'<a href="{link}" target="_blank" rel="noopener">Open the search page</a>'


def browse(searcher: Searcher, *, port: int = 0, open_browser: bool = True) -> Browsing:
    """Serve the page of a searcher, and open it in the browser; see :meth:`Searcher.browse`."""
    browsing = Browsing(searcher, port=port)
    if open_browser:
        webbrowser.open(browsing.link())
    return browsing


def _add_session(app: FastAPI, keys: SessionKeys) -> None:
    """Let the page exchange the code of its link for the key."""

    @app.post("/v1/session", include_in_schema=False)
    async def session(body: _Code) -> _Session:
        key = keys.exchange(body.code)
        if key is None:
            raise ServiceError(
                HTTPStatus.UNAUTHORIZED,
                "This link was used already. Make a new one with: searcher.browse()",
            )
        return _Session(key=key)
