"""Searches with a shop's filters, beside the search without a filter.

The searches take turns in the same run. ``ids_where`` evaluates the same filter by SQL, which every
search did before columns were kept in memory. Both the time and the processor time are stored; on
a shared machine, the latter and the ratios say more. ``FINEGRAIN_ROWS=1000000`` sets the size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import finegrain

ROWS, SHORT_ROWS = int(os.environ.get("FINEGRAIN_ROWS", 200_000)), 20_000
WIDTH, K = 128, 10
CHUNK = 10_000
NUM_QUERIES = 16
PAUSE = 0.02  # see conftest
MOST_TIMES = 3.0
"""A bound for busy machines; see the results for the ratios of a quiet one."""

CATEGORIES = ("coat", "dress", "shirt", "shoe", "bag")
FILTERS = (
    "brand = 'b7'",
    "camera = 'c3'",
    "price < 50",
    "price < 50 and category in ('coat', 'dress')",
    "price >= 10 and price < 200 and category = 'coat' and stock = true and not brand = 'b3'",
)

Columns = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def columns(short: bool) -> Columns:
    random = np.random.default_rng(0)
    count = SHORT_ROWS if short else ROWS
    vectors = random.standard_normal((count, WIDTH), np.float32)
    return {
        "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "camera": np.arange(count) % 20,
        "brand": random.integers(500, size=count),
        "price": random.uniform(1, 400, count).round(2),
        "category": random.integers(len(CATEGORIES), size=count),
        "stock": random.integers(2, size=count).astype(np.bool_),
    }


@pytest.fixture(scope="module")
def masks(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """The rows that match each filter, by NumPy."""
    brand, price, category = columns["brand"], columns["price"], columns["category"]
    long = (price >= 10) & (price < 200) & (category == 0) & columns["stock"] & (brand != 3)
    cheap = price < 50
    matches = (brand == 7, columns["camera"] == 3, cheap, cheap & (category < 2), long)
    return dict(zip(FILTERS, matches, strict=True))


@pytest.fixture(scope="module")
def filled(
    columns: Columns, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[finegrain.Gallery, float]]:
    """The gallery, and the processor time of adding a row in microseconds."""
    count = len(columns["vectors"])
    with finegrain.Gallery(tmp_path_factory.mktemp("filters") / "shop", dim=WIDTH) as gallery:
        seconds = 0.0
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            metadata = [
                {
                    "brand": f"b{columns['brand'][row]}",
                    "price": float(columns["price"][row]),
                    "category": CATEGORIES[columns["category"][row]],
                    "stock": bool(columns["stock"][row]),
                }
                for row in rows
            ]
            images = [f"crops/{row:07d}.jpg" for row in rows]
            cameras = [f"c{columns['camera'][row]}" for row in rows]
            before = time.process_time()
            gallery.add(
                columns["vectors"][rows.start : rows.stop],
                images,
                cameras=cameras,
                metadata=metadata,
            )
            seconds += time.process_time() - before
        yield gallery, 1e6 * seconds / count


def test_filters(
    filled: tuple[finegrain.Gallery, float],
    columns: Columns,
    masks: dict[str, NDArray[np.bool_]],
    rounds: Callable[[int], int],
    record: Callable[..., None],
) -> None:
    load = os.getloadavg()[0]
    gallery, add_us = filled
    random = np.random.default_rng(1)
    queries = list(random.standard_normal((NUM_QUERIES, 1, WIDTH), np.float32))
    first_ms = {}
    gallery.search(queries[0], K)
    for where, mask in masks.items():
        start = time.process_time()
        (hits,) = gallery.search(queries[0], K, where=where)
        first_ms[where] = round(1e3 * (time.process_time() - start), 1)
        ids = np.flatnonzero(mask) + 1
        scores = columns["vectors"][mask] @ queries[0][0]
        assert [hit.id for hit in hits] == ids[np.argsort(-scores)[:K]].tolist()
        assert gallery.ids_where(where) == ids.tolist()

    times: dict[str | None, list[tuple[float, float]]] = {where: [] for where in (None, *FILTERS)}
    by_sql: dict[str, list[float]] = {where: [] for where in FILTERS}
    for number in range(rounds(50)):
        query = queries[number % NUM_QUERIES]
        for where, taken in times.items():
            time.sleep(PAUSE)
            taken.append(_timed(partial(gallery.search, query, K, where)))
        if number < 5:
            for where, seconds in by_sql.items():
                seconds.append(_timed(partial(gallery.ids_where, where))[1])

    median = {where: 1e3 * np.median(taken, axis=0) for where, taken in times.items()}
    without = median[None]
    record(
        "filters",
        {
            "rows": len(columns["vectors"]),
            "width": WIDTH,
            "k": K,
            "load_average_before": round(load, 1),
            "add_cpu_us_a_row": round(add_us, 1),
            "no_filter": {"ms": round(without[0], 2), "cpu_ms": round(without[1], 2)},
            "filters": {
                where: {
                    "matches": int(mask.sum()),
                    "ms": round(median[where][0], 2),
                    "cpu_ms": round(median[where][1], 2),
                    "times_no_filter": round(median[where][0] / without[0], 2),
                    "cpu_times_no_filter": round(median[where][1] / without[1], 2),
                    "first_cpu_ms": first_ms[where],
                    "sql_cpu_ms": round(1e3 * float(np.median(by_sql[where])), 1),
                }
                for where, mask in masks.items()
            },
        },
    )
    assert all(median[where][1] < MOST_TIMES * without[1] for where in FILTERS)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of all processors."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processor
