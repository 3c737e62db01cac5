"""A service under load for minutes, and a restart while pictures are added.

    python benchmarks/load_service.py model.plan --gallery model.gallery --minutes 2

64 clients search at once, each as soon as it has its answer. The memory and the open files of the
service are read every second after a warm-up. Then eight clients add pictures while the service is
stopped and started again; every picture that was acknowledged must be in the gallery. The gallery
is copied first. Writes ``benchmarks/results/service_load.json``, with ratios and no times.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from finegrain.gallery import Gallery
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES

ROOT = Path(__file__).parents[1]
CLIENTS, WRITERS = 64, 8
WARM_UP_SECONDS = 10.0
LEAST_ADDED = 100
QUERIES = [query.text for query in ATTRIBUTE_QUERIES]


@contextmanager
def serving(plan: Path, gallery: Path, port: int) -> Iterator[psutil.Process]:
    """A service in a process of its own, which is stopped by SIGTERM."""
    command = [sys.executable, "-m", "finegrain", "serve", str(plan), "--gallery", str(gallery)]
    process = subprocess.Popen([*command, "--port", str(port)], env=os.environ)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with status {process.returncode}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


async def search(port: int, seconds: float, process: psutil.Process) -> dict[str, Any]:
    """Search from all clients; give times, statuses, and what the process used each second."""
    times: list[tuple[float, float]] = []
    statuses: Counter[str] = Counter()
    used: list[tuple[float, int, int]] = []
    began = time.perf_counter()
    end = began + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        while (start := time.perf_counter()) < end:
            number += 1
            body = {"query": QUERIES[number % len(QUERIES)], "k": 10}
            try:
                answer = await http.post("/v1/search", json=body)
                statuses[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
            times.append((start - began, time.perf_counter() - start))

    async def observe() -> None:
        while time.perf_counter() < end:
            used.append((time.perf_counter() - began, process.memory_info().rss, process.num_fds()))
            await asyncio.sleep(1)

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits
    ) as http:
        await asyncio.gather(observe(), *(client(number, http) for number in range(CLIENTS)))
    return {"times": times, "statuses": statuses, "used": used}


def summary(run: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Ratios of a run; the warm-up is left out."""
    late = [one for one in run["used"] if one[0] >= WARM_UP_SECONDS]
    half = (WARM_UP_SECONDS + seconds) / 2
    spent = np.array([s for start, s in run["times"] if start >= WARM_UP_SECONDS])
    starts = np.array([start for start, _ in run["times"] if start >= WARM_UP_SECONDS])
    p50, p99 = np.percentile(spent, (50, 99))
    middle = len(late) // 2
    memory = [one[1] for one in late]
    descriptors = [one[2] for one in late]
    return {
        "clients": CLIENTS,
        "minutes": round(seconds / 60, 1),
        "requests": len(run["times"]),
        "statuses": dict(run["statuses"]),
        "rate_second_half_to_first": round(
            float((starts >= half).sum() / (starts < half).sum()), 2
        ),
        "p99_to_p50": round(float(p99 / p50), 2),
        "memory_second_half_to_first": round(
            float(np.mean(memory[middle:]) / np.mean(memory[:middle])), 3
        ),
        "descriptors_first": descriptors[0],
        "descriptors_most": max(descriptors),
        "descriptors_last": descriptors[-1],
    }


def restart(plan: Path, gallery: Path, port: int) -> dict[str, Any]:
    """Add pictures while the service stops and starts again; give what was lost."""
    acknowledged: list[int] = []
    refused: Counter[str] = Counter()
    lock, stopping = threading.Lock(), threading.Event()

    def write(first: int) -> None:
        number = first
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            while not stopping.is_set():
                number += 1
                try:
                    sent = http.post("/v1/pictures", files={"pictures": picture(number)})
                except httpx.HTTPError as error:
                    with lock:
                        refused[type(error).__name__] += 1
                    time.sleep(0.1)
                    continue
                with lock:
                    if sent.status_code == 200:
                        acknowledged.extend(sent.json()["ids"])
                    else:
                        refused[str(sent.status_code)] += 1

    writers = [threading.Thread(target=write, args=(n << 32,)) for n in range(WRITERS)]

    def until(count: int) -> None:
        while len(acknowledged) < count:
            time.sleep(0.05)

    with serving(plan, gallery, port):
        for writer in writers:
            writer.start()
        until(LEAST_ADDED)
    with serving(plan, gallery, port):
        until(len(acknowledged) + LEAST_ADDED)
        stopping.set()
        for writer in writers:
            writer.join()
    with Gallery(gallery, create=False) as opened:
        lost = set(acknowledged) - set(opened)
        is_valid = opened.check().is_valid
    return {
        "acknowledged": len(acknowledged),
        "lost": len(lost),
        "gallery_is_valid": is_valid,
        "refused_meanwhile": dict(refused),
    }


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (64, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    seconds = 60 * arguments.minutes
    with TemporaryDirectory() as folder:
        gallery, port = Path(folder) / "g", free_port()
        with Gallery(arguments.gallery, create=False) as given:
            pictures = given.backup(gallery)
        with serving(arguments.plan, gallery, port) as process:
            run = asyncio.run(search(port, seconds, process))
        measured = {
            "what": "service_load",
            "pictures": pictures,
            **summary(run, seconds),
            "restart": restart(arguments.plan, gallery, port),
        }
    print(json.dumps(measured, indent=1))
    path = arguments.out / "service_load.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
