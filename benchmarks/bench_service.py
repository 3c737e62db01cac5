"""Searches over HTTP by 64 clients, compared with the library and with a plain FAISS service.

The plain service is what a team writes in an afternoon: FastAPI, the same text tower, one query at
a time, and flat FAISS. The clients run in a process of their own, on the same cores. The services
and the library take turns.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import faiss
import numpy as np
import psutil
from fastapi import FastAPI
from fixtures.running_service import running
from numpy.typing import NDArray

import finegrain
from benchmarks.bench_query import CAPTIONS
from finegrain.encoder import Encoder
from finegrain.serve.app import Settings, create_app

CLIENTS = 64
K = 10
BATCH = 16
SECONDS = 20.0
TURNS = 3


def test_service(
    plan: Path,
    filled: Callable[[Path], finegrain.Searcher],
    encoder: Encoder,
    vectors: NDArray[np.float32],
    short: bool,
    record: Callable[..., None],
) -> None:
    seconds, turns = (3.0, 1) if short else (SECONDS, TURNS)
    searcher = filled(plan)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    rates: dict[str, list[float]] = {"one by one": [], "batches of 16": []}
    loads: dict[str, list[dict[str, Any]]] = {"finegrain": [], "faiss": []}
    context = multiprocessing.get_context("spawn")
    with (
        running(create_app(searcher, Settings())) as service,
        running(plain_service(encoder, flat)) as plain,
        ProcessPoolExecutor(1, mp_context=context) as clients,
    ):
        addresses = {"finegrain": service, "faiss": plain}
        for address in addresses.values():  # warm-up
            clients.submit(load, address, CAPTIONS, CLIENTS, 1.0).result()
        before = memory()
        for _ in range(turns):
            rates["one by one"].append(rate_of(searcher, 1, seconds))
            rates["batches of 16"].append(rate_of(searcher, BATCH, seconds))
            for name, address in addresses.items():
                loads[name].append(
                    clients.submit(load, address, CAPTIONS, CLIENTS, seconds).result()
                )
        after = memory()
    summary = {name: combined(runs) for name, runs in loads.items()}
    library = {name: round(max(values), 1) for name, values in rates.items()}
    record(
        "service",
        {
            "rows": len(vectors),
            "clients": CLIENTS,
            "library_queries_per_second": library,
            "services": summary,
            "of_the_library": round(
                summary["finegrain"]["queries_per_second"] / library["batches of 16"], 2
            ),
            "memory_growth_mb": round((after - before) / 2**20, 1),
        },
    )
    print(json.dumps({"library": library, "services": summary}, indent=1))
    assert summary["finegrain"]["other_statuses"] == {}
    ours, plain_rate = (summary[name]["queries_per_second"] for name in ("finegrain", "faiss"))
    assert ours > 0.8 * plain_rate


def plain_service(encoder: Encoder, flat: Any) -> FastAPI:
    app = FastAPI()
    lock = threading.Lock()

    @app.post("/v1/search")
    def search(body: dict[str, Any]) -> dict[str, list[Any]]:
        with lock:
            text = encoder.encode_texts([body["query"]])
            scores, rows = flat.search(text, body["k"])
        return {"scores": scores[0].tolist(), "ids": rows[0].tolist()}

    return app


def rate_of(searcher: finegrain.Searcher, batch: int, seconds: float) -> float:
    """Queries in a second of the library alone."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        captions = [CAPTIONS[(count + n) % len(CAPTIONS)] for n in range(batch)]
        searcher.query(captions, K)
        count += batch
    return count / spent


def load(address: str, captions: Sequence[str], clients: int, seconds: float) -> dict[str, Any]:
    """Send requests from some clients at once, each as soon as it has its answer."""
    host, port = urlsplit(address).hostname, urlsplit(address).port
    times: list[float] = []
    others: dict[str, int] = {}
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while time.perf_counter() < end:
            body = json.dumps({"query": captions[number % len(captions)], "k": K}).encode()
            number += 1
            start = time.perf_counter()
            writer.write(
                b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
                b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = head.split(b" ")[1].decode()
            if status == "200":
                times.append(time.perf_counter() - start)
            else:
                others[status] = others.get(status, 0) + 1
        writer.close()

    async def all_clients() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    began = time.perf_counter()
    asyncio.run(all_clients())
    return {"seconds": time.perf_counter() - began, "times": times, "others": others}


def combined(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = np.concatenate([run["times"] for run in runs])
    others: dict[str, int] = {}
    for run in runs:
        for status, count in run["others"].items():
            others[status] = others.get(status, 0) + count
    p50, p99 = 1e3 * np.percentile(times, (50, 99))
    return {
        "queries_per_second": round(len(times) / sum(run["seconds"] for run in runs), 1),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "other_statuses": others,
    }


def memory() -> int:
    """Resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)
