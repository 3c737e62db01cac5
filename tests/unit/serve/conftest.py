from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from finegrain.search.searcher import Searcher
from finegrain.serve.app import Settings, create_app
from finegrain.serve.keys import KeyFile, KeyRing


@pytest.fixture(scope="module")
def filled(tiny_plan, crops, tmp_path_factory):
    """Path of a gallery of twelve crops at two cameras. Shared: do not change it."""
    path = tmp_path_factory.mktemp("served") / "g"
    with Searcher(tiny_plan, gallery=path, threads=1) as searcher:
        pictures = sorted(crops.iterdir())
        cameras = [{"camera": f"gate-{n % 2}", "price": n} for n in range(len(pictures))]
        searcher.add(pictures, cameras, progress=False)
    return path


@pytest.fixture
def own_copy(filled, tiny_plan, tmp_path):
    """A copy of the gallery that a test may change."""
    from finegrain.gallery import Gallery

    with Gallery(filled, create=False) as gallery:
        gallery.backup(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def serve(tiny_plan):
    """``serve(gallery, **settings)`` gives a client of a service in this process.

    Several galleries are a dictionary by name.
    """
    clients = []

    def start(gallery, *, plan=tiny_plan, **settings):
        def opened(path):
            return Searcher(plan, gallery=path, threads=1)

        several = isinstance(gallery, dict)
        searchers = {n: opened(p) for n, p in gallery.items()} if several else opened(gallery)
        app = create_app(searchers, Settings(**settings))
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve, filled):
    """A client of a service without keys over the shared gallery."""
    return serve(filled)


@pytest.fixture
def ring(tmp_path):
    """``ring(name, scope, where)`` makes a key; ``ring.keys`` are all keys."""

    class Ring:
        file = KeyFile(tmp_path / "keys.json")

        def __call__(self, name, scope, where=None, per_minute=None):
            key = self.file.make(name, scope, where, per_minute=per_minute)
            return {"Authorization": f"Bearer {key}"}

        @property
        def keys(self):
            return KeyRing(self.file)

    return Ring()


class Receiver:
    """A webhook on this machine, which keeps its requests.

    Attributes:
        address: Its address.
        requests: Requests with their headers and bodies.
        statuses: Answers to the next requests: a status, ``"hang"`` or ``"drip"``; then 200.
    """

    def __init__(self):
        self.requests = []
        self.statuses = []
        self._released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # the name that http.server calls
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.requests.append(SimpleNamespace(headers=self.headers, body=body))
                if status == "hang":
                    receiver._released.wait()
                    return
                if status == "drip":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    while not receiver._released.wait(0.05):
                        self.wfile.write(b"a: b\r\n")
                    return
                self.send_response(status)
                self.send_header("Location", f"{receiver.address}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

            def handle(self):
                with suppress(ConnectionError):
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
