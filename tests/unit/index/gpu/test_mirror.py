"""Search by fp16 scans compared with a literal exact search, on difficult data."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, MissingExtraError, PlanError
from finegrain.index.estimate import Query
from finegrain.index.exact import Hit, VectorIndex
from finegrain.index.gpu.faiss_scan import FaissScan
from finegrain.index.gpu.halves import halve
from finegrain.index.gpu.mirror import Mirror
from finegrain.index.gpu.torch_scan import TorchScan

DIM = 24


def torch_scan(rows):
    return TorchScan(np.empty((0, DIM), np.float16), "cpu", capacity=rows)


def faiss_scan(rows):
    """An index on the CPU that stores vectors as the index on a GPU does."""
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(DIM, kind, faiss.METRIC_INNER_PRODUCT)
    return FaissScan(index, np.empty((0, DIM), np.float16), max_depth=150, capacity=rows)


class Counting:
    """A scan that records the requested depths."""

    def __init__(self, scan):
        self.scan, self.depths = scan, []
        self.capacity, self.coarseness = scan.capacity, scan.coarseness

    @property
    def max_depth(self):
        return self.scan.max_depth

    def append(self, halves):
        self.scan.append(halves)

    def best(self, queries, depth):
        self.depths.append((len(queries), depth))
        return self.scan.best(queries, depth)


def literal_search(ids, vectors, queries, k):
    """Compute all scores in float64, round them once to float32, and sort all of them."""
    answers = []
    for query in queries:
        scores = Query(query.astype(np.float64)).scores(vectors)
        order = np.lexsort((ids, -scores))[:k]
        answers.append([Hit(int(ids[row]), float(scores[row])) for row in order])
    return answers


def mirrored(ids, vectors, scan):
    index = VectorIndex(DIM)
    index.add(ids, vectors)
    mirror = Mirror(index, scan)
    assert mirror.follow(index)
    return mirror


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def draw(kind, rows, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((rows, DIM), np.float32)).astype(np.float32)
    if kind == "near":  # more similar to each other than fp16 can represent
        vectors = unit(vectors[:1] + 1e-4 * vectors).astype(np.float32)
    if kind == "equal":
        vectors = vectors[rng.integers(0, max(rows // 20, 1), rows)]
    if kind == "scaled":  # as small as numbers with few digits in fp16
        vectors *= np.float32(10.0) ** rng.integers(-7, 3, (rows, 1)).astype(np.float32)
    return vectors


@pytest.fixture(params=[torch_scan, faiss_scan])
def make_scan(request):
    return request.param


@given(
    kind=st.sampled_from(["random", "near", "equal", "scaled"]),
    rows=st.sampled_from([1, 2, 63, 64, 70, 500]),
    k=st.sampled_from([1, 7, 64, 600]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_the_answer_is_exact(kind, rows, k, seed):
    vectors, queries = draw(kind, rows, seed), draw("random", 3, seed + 1)
    queries[1] = vectors[-1]
    queries[2] *= 0 if seed % 2 else 1e-3
    ids = np.arange(rows) * 3 + 5
    wanted = literal_search(ids, vectors, queries, k)
    for make in (torch_scan, faiss_scan):
        assert mirrored(ids, vectors, make(rows)).search(queries, k) == wanted


@given(kind=st.sampled_from(["random", "near", "scaled"]), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_errors_of_estimates_are_within_the_bound(kind, seed):
    vectors, (vector,) = draw(kind, 200, seed), draw("scaled", 1, seed + 1)
    query = Query(vector.astype(np.float64))
    halves, halving = halve(vectors)
    sent = query.direction.astype(np.float16)
    scan = torch_scan(200)
    scan.append(halves)
    rows, estimates = scan.best(sent[None], 200)
    exact = query.scores(vectors)[rows[0]] / query.length
    assert np.abs(estimates[0] - exact).max() <= halving.error(query, sent)


def test_most_searches_scan_once(make_scan):
    vectors, queries = draw("random", 2000, 0), draw("random", 40, 1)
    scan = Counting(make_scan(2000))
    mirrored(np.arange(1, 2001), vectors, scan).search(queries, 10)
    assert scan.depths == [(16, 74), (16, 74), (8, 74)]


def test_only_unproven_queries_are_scanned_deeper():
    vectors = np.concatenate([draw("near", 300, 0), draw("random", 700, 1)])
    queries = np.stack([vectors[0], vectors[-1]])
    scan = Counting(torch_scan(1000))
    ids = np.arange(1, 1001)
    hits = mirrored(ids, vectors, scan).search(queries, 5)
    assert scan.depths == [(2, 69), (1, 276), (1, 1000)]
    assert hits == literal_search(ids, vectors, queries, 5)


def test_beyond_the_depth_of_a_scan_the_index_answers():
    vectors = draw("near", 300, 0)
    scan = Counting(faiss_scan(300))
    ids = np.arange(1, 301)
    hits = mirrored(ids, vectors, scan).search(vectors[:1], 5)
    assert scan.depths == [(1, 69), (1, 150)]
    assert hits == literal_search(ids, vectors, vectors[:1], 5)


def test_a_number_beyond_fp16_is_refused():
    with pytest.raises(GalleryError, match="unit length, got a number beyond fp16"):
        halve(np.full((1, DIM), 1e5, np.float32))


def test_faiss_without_gpus_is_an_error(monkeypatch):
    halves, _ = halve(draw("random", 2, 0))
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(MissingExtraError, match=r"FAISS for GPUs.*finegrain\[gpu\]"):
        FaissScan.on_gpu(halves)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    with pytest.raises(PlanError, match="no GPU: 1 found, 1 asked for"):
        FaissScan.on_gpu(halves, device=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_answer():
    vectors, queries = draw("near", 5000, 0), draw("random", 20, 1)
    ids = np.arange(1, 5001)
    scan = TorchScan(np.empty((0, DIM), np.float16), "cuda", capacity=5000)
    hits = mirrored(ids, vectors, scan).search(queries, 10)
    assert hits == literal_search(ids, vectors, queries, 10)
