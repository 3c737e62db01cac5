"""Stores of a gallery, for the contract of all galleries."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

METADATA_PORT = 2380  # of the etcd inside a Milvus server
ANSWER_SECONDS = 10

Place = Callable[[str], str | Path]
"""The address of the gallery with a name."""


@pytest.fixture(scope="session")
def login() -> str:
    """User and password of a new Milvus server."""
    return "root:Milvus"


@pytest.fixture(scope="package")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    wait_until_ready: Callable[[subprocess.Popen[bytes], Callable[[], bool], Path], None],
) -> Iterator[str]:
    """Address of a Milvus server that runs during the tests of this folder.

    An idle server takes a third of a core, so it ends with them.
    """
    milvus = pytest.importorskip("milvus", reason="no Milvus server is installed")
    pytest.importorskip("pymilvus")
    folder = tmp_path_factory.mktemp("milvus")
    config = milvus.MilvusServerConfig(data_dir=str(folder))
    # Writes are visible after a tick, and a new collection after a round of checks.
    config.set("proxy.timeTickInterval", 20)
    config.set("queryCoord.checkInterval", 100)
    config.set("queryCoord.distPullInterval", 50)
    config.set("common.security.authorizationEnabled", "true")
    running = milvus.MilvusServer(config, wait_for_started=False)
    with only_server():
        try:
            running.start()
            process: subprocess.Popen[bytes] = running.server_proc
            address = f"http://127.0.0.1:{running.webservice_port}/healthz"
            wait_until_ready(
                process, partial(is_healthy, address), folder / "logs/milvus-stderr.log"
            )
            yield f"127.0.0.1:{running.listen_port}"
        finally:
            running.stop()
            assert process.poll() is not None
            shutil.rmtree(folder)


@contextmanager
def only_server() -> Iterator[None]:
    """Wait for other sessions, because the port of a server's metadata store is fixed."""
    with FileLock(Path(tempfile.gettempdir()) / "finegrain-milvus.lock"):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", METADATA_PORT)) == 0:
                pytest.skip(f"something else listens on port {METADATA_PORT}")
        yield


def is_healthy(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:
        return b"OK" in answer.read()
    return False


@pytest.fixture(
    scope="package", params=["file", "milvus-lite", pytest.param("milvus", marks=pytest.mark.slow)]
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("galleries")
    if request.param == "file":
        return lambda name: folder / name
    if request.param == "milvus-lite":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("pymilvus")
        return lambda name: f"milvus:{folder}/{name}.db"
    address, login = request.getfixturevalue("server"), request.getfixturevalue("login")
    return lambda name: f"http://{login}@{address}/{name}"
