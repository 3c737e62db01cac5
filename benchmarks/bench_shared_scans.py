"""Exact search for one query, for a batch, and for 16 clients at the same time.

The peers take turns in the same run: NumPy's product in float32, flat FAISS, usearch's exact search
(if it is installed), and one thread that reads as many bytes as the codes have. Times are medians
and minima in milliseconds. On a shared machine, the minima and the ratios are more reliable.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from finegrain.index.codes import multiplies_bytes
from finegrain.index.exact import VectorIndex

ROWS, WIDTH, K = 100_000, 512, 10
BATCHES = (1, 16)
CLIENTS = 16

Search = Callable[[NDArray[np.float32]], object]


def test_shared_scans(rounds: Callable[[int], int], record: Callable[..., None]) -> None:
    load = os.getloadavg()[0]
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ROWS, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = random.standard_normal((CLIENTS, WIDTH), np.float32)
    index, flat = VectorIndex(WIDTH), faiss.IndexFlatIP(WIDTH)
    index.add(np.arange(ROWS), vectors)
    flat.add(vectors)
    searches: dict[str, Search] = {
        "finegrain": lambda some: index.search(some, K),
        "numpy": lambda some: np.argpartition(some @ vectors.T, -K, axis=1),
        "faiss_flat": lambda some: flat.search(some, K),
    }
    try:
        usearch = importlib.import_module("usearch.index")
    except ImportError:
        pass
    else:
        searches["usearch_exact"] = lambda some: usearch.search(
            vectors, some, K, usearch.MetricKind.IP, exact=True
        )
    best = np.argmax(queries @ vectors.T, axis=1)
    assert [hits[0].id for hits in index.search(queries, K)] == best.tolist()
    codes = np.ones(ROWS * WIDTH // 8, np.int64)
    times = {
        str(size): _times(searches | {"read_codes": lambda _: codes.sum()}, queries[:size], rounds)
        for size in BATCHES
    }
    record(
        "shared_scans",
        {
            "rows": ROWS,
            "width": WIDTH,
            "k": K,
            "kernel": "bytes" if multiplies_bytes() else "faiss",
            # if above the number of cores, other programs slowed down all searches
            "load_average_before": round(load, 1),
            "by_batch": times,
            "clients": CLIENTS,
            "queries_per_second": round(
                _throughput(searches["finegrain"], queries, rounds(20) / 8)
            ),
        },
    )
    batch = times[str(max(BATCHES))]
    assert batch["finegrain"]["min_ms"] < batch["faiss_flat"]["min_ms"]


def _times(
    searches: dict[str, Search], queries: NDArray[np.float32], rounds: Callable[[int], int]
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds(20)):
        for name, search in searches.items():
            start = time.perf_counter()
            search(queries)
            seconds[name].append(time.perf_counter() - start)
    ours = float(np.median(seconds["finegrain"]))
    return {
        name: {
            "median_ms": round(1e3 * float(np.median(taken)), 2),
            "min_ms": round(1e3 * min(taken), 2),
            "times_finegrain": round(float(np.median(taken)) / ours, 2),
        }
        for name, taken in seconds.items()
    }


def _throughput(search: Search, queries: NDArray[np.float32], seconds: float) -> float:
    """Queries per second, with one thread per query."""
    counts = [0] * len(queries)
    stop = time.perf_counter() + seconds

    def client(number: int) -> None:
        while time.perf_counter() < stop:
            search(queries[number : number + 1])
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds
