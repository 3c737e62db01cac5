"""Searching and filling a gallery.

A new gallery numbers its pictures from 1, so an id here is a position plus one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import finegrain

K = 10
NUM_QUERIES = 16
NUM_ADDED = 10_000
CAMERA = "gate-3"


@pytest.fixture(scope="module")
def queries(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Vectors near one of the gallery each, ``[1, D]``."""
    noise = np.random.default_rng(1).standard_normal((NUM_QUERIES, vectors.shape[1]), np.float32)
    found = vectors[:: len(vectors) // NUM_QUERIES][:NUM_QUERIES] + 0.05 * noise
    return list((found / np.linalg.norm(found, axis=1, keepdims=True))[:, None])


def _best(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.intp]:
    """Positions of the best by NumPy's quickest way, best first."""
    scores = vectors @ query[0]
    some = np.argpartition(-scores, K)[:K]
    return some[np.argsort(-scores[some])]


def test_search_all(
    searcher: finegrain.Searcher,
    vectors: NDArray[np.float32],
    queries: list[NDArray[np.float32]],
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
) -> None:
    def ours(query: NDArray[np.float32]) -> list[int]:
        return [hit.id for hit in searcher.gallery.search(query, K)[0]]

    def plain(query: NDArray[np.float32]) -> list[int]:
        return [int(place) + 1 for place in _best(vectors, query)]

    assert [ours(query)[0] for query in queries] == [plain(query)[0] for query in queries]
    race(ours, plain, queries, rounds=rounds(100))


def test_search_filtered(
    searcher: finegrain.Searcher,
    vectors: NDArray[np.float32],
    cameras: list[str],
    queries: list[NDArray[np.float32]],
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
) -> None:
    column = np.array(cameras)

    def ours(query: NDArray[np.float32]) -> list[int]:
        hits = searcher.gallery.search(query, K, where=f"camera = '{CAMERA}'")[0]
        return [hit.id for hit in hits]

    def plain(query: NDArray[np.float32]) -> list[int]:
        allowed = np.flatnonzero(column == CAMERA)
        return [int(place) + 1 for place in allowed[_best(vectors[allowed], query)]]

    assert [ours(query)[0] for query in queries] == [plain(query)[0] for query in queries]
    race(ours, plain, queries, rounds=rounds(100))


@pytest.fixture
def new_galleries(
    vectors: NDArray[np.float32], tmp_path: Path
) -> Iterator[Callable[[], finegrain.Gallery]]:
    opened: list[finegrain.Gallery] = []
    numbers = count()

    def new() -> finegrain.Gallery:
        opened.append(finegrain.Gallery(tmp_path / f"{next(numbers)}", dim=vectors.shape[1]))
        return opened[-1]

    yield new
    for gallery in opened:
        gallery.close()


def test_add(
    vectors: NDArray[np.float32],
    images: list[str],
    cameras: list[str],
    new_galleries: Callable[[], finegrain.Gallery],
    benchmark: Any,
    rounds: Callable[[int], int],
) -> None:
    def add(gallery: finegrain.Gallery) -> list[int]:
        return gallery.add(vectors[:NUM_ADDED], images[:NUM_ADDED], cameras=cameras[:NUM_ADDED])

    ids = benchmark.pedantic(
        add, setup=lambda: ((new_galleries(),), {}), rounds=rounds(10), warmup_rounds=1
    )
    assert len(ids) == NUM_ADDED
    if benchmark.enabled:
        benchmark.extra_info["rows_per_second"] = NUM_ADDED / benchmark.stats["median"]
