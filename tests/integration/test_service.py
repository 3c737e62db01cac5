"""A service in a process of its own, as an operator starts and stops it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image

from finegrain.gallery import Gallery
from finegrain.search.searcher import Searcher

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 64), (number * 7 % 256, number * 31 % 256, 99)).save(file, "PNG")
    return file.getvalue()


def test_a_stop_under_load_loses_no_acknowledged_picture(plan, crops, tmp_path, wait_until_ready):
    with Searcher(plan, threads=1) as searcher:
        before = len(searcher.add(crops, progress=False).ids)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "finegrain", "serve", str(plan), "--port", str(port)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def is_ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    acknowledged: list[int] = []
    lock = threading.Lock()
    enough = threading.Event()

    def add(first: int) -> None:
        with httpx.Client(timeout=120) as client:
            for number in range(first, first + 400):
                try:
                    sent = client.post(
                        f"{address}/v1/pictures", files={"pictures": picture(number)}
                    )
                except httpx.HTTPError:
                    return
                if sent.status_code != 200:
                    return
                with lock:
                    acknowledged.extend(sent.json()["ids"])
                    if len(acknowledged) >= 20:
                        enough.set()

    threads = [threading.Thread(target=add, args=(1000 * n,)) for n in range(4)]
    try:
        wait_until_ready(process, is_ready, log)
        for thread in threads:
            thread.start()
        assert enough.wait(300)
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        for thread in threads:
            thread.join(120)
    finally:
        process.kill()
    with Gallery(f"{plan.with_suffix('.gallery')}", create=False) as gallery:
        assert gallery.check().is_valid
        assert set(acknowledged) <= set(gallery)
        assert len(gallery) >= before + len(acknowledged)
