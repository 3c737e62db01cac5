"""Search and fill a gallery.

A new gallery numbers its pictures from 1, so an id is a position plus one. The index without a file
and without filter expressions is compared with flat FAISS in float32 and with NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

import finegrain
from finegrain.index.exact import VectorIndex

K = 10
NUM_QUERIES = 16
NUM_ADDED = 10_000
CAMERA = "gate-3"


@pytest.fixture(scope="module")
def queries(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Queries ``[1, D]``, each near a vector of the gallery."""
    noise = np.random.default_rng(1).standard_normal((NUM_QUERIES, vectors.shape[1]), np.float32)
    queries = vectors[:: len(vectors) // NUM_QUERIES][:NUM_QUERIES] + 0.05 * noise
    return list((queries / np.linalg.norm(queries, axis=1, keepdims=True))[:, None])


def _best(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.intp]:
    """Positions of the best vectors, best first, by the fastest method in NumPy."""
    scores = vectors @ query[0]
    some = np.argpartition(-scores, K)[:K]
    return some[np.argsort(-scores[some])]


def test_search_all(
    searcher: finegrain.Searcher,
    vectors: NDArray[np.float32],
    queries: list[NDArray[np.float32]],
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    record: Callable[..., None],
) -> None:
    def ours(query: NDArray[np.float32]) -> list[int]:
        return [hit.id for hit in searcher.gallery.search(query, K)[0]]

    def baseline(query: NDArray[np.float32]) -> list[int]:
        return [int(place) + 1 for place in _best(vectors, query)]

    assert [ours(query)[0] for query in queries] == [baseline(query)[0] for query in queries]
    summary = race(ours, baseline, queries, rounds=rounds(100))
    record("search", {**summary, "gallery": len(vectors), "k": K})
    assert summary["ratio"] > LEAST_RATIO


def test_search_filtered(
    searcher: finegrain.Searcher,
    vectors: NDArray[np.float32],
    cameras: list[str],
    queries: list[NDArray[np.float32]],
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    record: Callable[..., None],
) -> None:
    column = np.array(cameras)

    def ours(query: NDArray[np.float32]) -> list[int]:
        hits = searcher.gallery.search(query, K, where=f"camera = '{CAMERA}'")[0]
        return [hit.id for hit in hits]

    def baseline(query: NDArray[np.float32]) -> list[int]:
        allowed = np.flatnonzero(column == CAMERA)
        return [int(place) + 1 for place in allowed[_best(vectors[allowed], query)]]

    assert [ours(query)[0] for query in queries] == [baseline(query)[0] for query in queries]
    summary = race(ours, baseline, queries, rounds=rounds(100))
    record("search_filtered", {**summary, "gallery": len(vectors), "k": K})


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


# --- the index alone, compared with FAISS and NumPy ------------------------------------------

WIDTH = 512
SIZES = (10_000, 100_000, 1_000_000)
SHARES = (0.001, 0.01, 0.1, 0.5)
PEERS = ("faiss", "numpy")
LEAST_RATIO = 0.5
"""Smallest ratio for an unfiltered search of 100,000 rows or more. Shorter searches of the
baselines take a few milliseconds, which depend mostly on the scheduler of a busy machine."""


@dataclass(frozen=True)
class Filled:
    """The same unit vectors in three indexes; the id of a vector is its row number."""

    vectors: NDArray[np.float32]
    flat: faiss.IndexFlatIP
    index: VectorIndex


@pytest.fixture(scope="module", params=SIZES)
def loaded(request: pytest.FixtureRequest, rounds: Callable[[int], int]) -> Filled:
    if request.param > 100_000 and rounds(100) < 100:
        pytest.skip("a million vectors are searched in the full form only")
    vectors = np.random.default_rng(2).standard_normal((request.param, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat, index = faiss.IndexFlatIP(WIDTH), VectorIndex(WIDTH)
    flat.add(vectors)
    index.add(np.arange(len(vectors)), vectors)
    return Filled(vectors, flat, index)


def _best_by(peer: str, loaded: Filled) -> Callable[[NDArray[np.float32]], NDArray[np.intp]]:
    if peer == "numpy":
        return lambda query: _best(loaded.vectors, query)
    return lambda query: loaded.flat.search(query, K)[1][0]


def _best_allowed_by(
    peer: str, loaded: Filled, allowed: NDArray[np.int64]
) -> Callable[[NDArray[np.float32]], NDArray[np.intp]]:
    if peer == "numpy":
        return lambda query: allowed[_best(loaded.vectors[allowed], query)]
    mask = np.zeros(len(loaded.vectors), np.bool_)
    mask[allowed] = True
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = faiss.SearchParameters(sel=selector)
    return lambda query: loaded.flat.search(query, K, params=parameters)[1][0]


@pytest.mark.parametrize("peer", PEERS)
def test_index(
    loaded: Filled, peer: str, race: Callable[..., dict[str, Any]], rounds: Callable[[int], int]
) -> None:
    def ours(query: NDArray[np.float32]) -> list[int]:
        return [hit.id for hit in loaded.index.search(query, K)[0]]

    baseline = _best_by(peer, loaded)
    random = np.random.default_rng(3).standard_normal((NUM_QUERIES, 1, WIDTH), np.float32)
    assert [ours(query)[0] for query in random] == [baseline(query)[0] for query in random]
    summary = race(ours, baseline, list(random), rounds=rounds(50))
    if len(loaded.vectors) >= 100_000:
        assert summary["ratio"] > LEAST_RATIO


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("loaded", [100_000], indirect=True)
def test_index_filtered(
    loaded: Filled,
    peer: str,
    share: float,
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
) -> None:
    random = np.random.default_rng(4)
    allowed = np.flatnonzero(random.random(len(loaded.vectors)) < share)

    def ours(query: NDArray[np.float32]) -> list[int]:
        return [hit.id for hit in loaded.index.search(query, K, allowed)[0]]

    baseline = _best_allowed_by(peer, loaded, allowed)
    queries = list(random.standard_normal((NUM_QUERIES, 1, WIDTH), np.float32))
    assert [ours(query)[0] for query in queries] == [baseline(query)[0] for query in queries]
    race(ours, baseline, queries, rounds=rounds(50))
