"""Scans of fp16 vectors beside the exact search, on whatever data is hard for them."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, MissingExtraError, PlanError
from finegrain.gallery.estimate import Query
from finegrain.gallery.index import VectorIndex
from finegrain.runtime.topk.exact import ExactTopK
from finegrain.runtime.topk.faiss_scan import FaissScan
from finegrain.runtime.topk.settled import SettledTopK, halve
from finegrain.runtime.topk.torch_scan import TorchScan

DIM = 24


def torch_scan(halves):
    return TorchScan(halves, "cpu")


def faiss_scan(halves):
    """The index of the CPU that stores as the one of the GPU does."""
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(halves.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    return FaissScan(index, halves, max_depth=150)


class Counting:
    """A scan that remembers how deep it was asked."""

    def __init__(self, scan):
        self.scan, self.max_depth, self.depths = scan, scan.max_depth, []

    def best(self, queries, depth):
        self.depths.append((len(queries), depth))
        return self.scan.best(queries, depth)


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def draw(kind, rows, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((rows, DIM), np.float32)).astype(np.float32)
    if kind == "near":  # nearer to each other than fp16 can tell apart
        vectors = unit(vectors[:1] + 1e-4 * vectors).astype(np.float32)
    if kind == "equal":
        vectors = vectors[rng.integers(0, max(rows // 20, 1), rows)]
    if kind == "scaled":  # down to where fp16 has few digits left
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
def test_the_answer_is_the_exact_one(kind, rows, k, seed):
    vectors, queries = draw(kind, rows, seed), draw("random", 3, seed + 1)
    queries[1] = vectors[-1]
    queries[2] *= 0 if seed % 2 else 1e-3
    ids = np.arange(rows) * 3 + 5
    wanted = ExactTopK(ids, vectors).search(queries, k)
    halves, halving = halve(vectors)
    for make in (torch_scan, faiss_scan):
        assert SettledTopK(ids, vectors, halving, make(halves)).search(queries, k) == wanted
    index = VectorIndex(DIM)
    index.add(ids, vectors)
    assert index.search(queries, k) == wanted


@given(kind=st.sampled_from(["random", "near", "scaled"]), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_estimate_is_off_by_more_than_is_said(kind, seed):
    vectors, (vector,) = draw(kind, 200, seed), draw("scaled", 1, seed + 1)
    query = Query(vector.astype(np.float64))
    halves, halving = halve(vectors)
    sent = query.direction.astype(np.float16)
    rows, estimates = torch_scan(halves).best(sent[None], 200)
    exact = query.scores(vectors)[rows[0]] / query.length
    assert np.abs(estimates[0] - exact).max() <= halving.error(query, sent)


def test_most_searches_scan_once(make_scan):
    vectors, queries = draw("random", 2000, 0), draw("random", 40, 1)
    halves, halving = halve(vectors)
    scan = Counting(make_scan(halves))
    SettledTopK(np.arange(2000), vectors, halving, scan).search(queries, 10)
    assert scan.depths == [(16, 74), (16, 74), (8, 74)]


def test_only_what_is_not_settled_is_scanned_deeper():
    vectors = np.concatenate([draw("near", 300, 0), draw("random", 700, 1)])
    queries = np.stack([vectors[0], vectors[-1]])
    halves, halving = halve(vectors)
    scan = Counting(torch_scan(halves))
    ids = np.arange(1000)
    found = SettledTopK(ids, vectors, halving, scan).search(queries, 5)
    assert scan.depths == [(2, 69), (1, 276), (1, 1000)]
    assert found == ExactTopK(ids, vectors).search(queries, 5)


def test_beyond_the_depth_of_a_scan_all_is_read():
    vectors = draw("near", 300, 0)
    halves, halving = halve(vectors)
    scan = Counting(faiss_scan(halves))
    ids = np.arange(300)
    found = SettledTopK(ids, vectors, halving, scan).search(vectors[:1], 5)
    assert scan.depths == [(1, 69)]
    assert found == ExactTopK(ids, vectors).search(vectors[:1], 5)


def test_nothing_to_search_or_to_find(make_scan):
    none, some = np.empty((0, DIM), np.float32), draw("random", 2, 0)
    halves, halving = halve(some)
    assert SettledTopK(np.arange(2), some, halving, make_scan(halves)).search(none, 3) == []
    assert SettledTopK(np.arange(2), some, halving, make_scan(halves)).search(some, 0) == [[], []]
    halves, halving = halve(none)
    assert SettledTopK(np.arange(0), none, halving, make_scan(halves)).search(some, 3) == [[], []]


def test_a_number_beyond_fp16():
    with pytest.raises(GalleryError, match="unit length, got a number beyond fp16"):
        halve(np.full((1, DIM), 1e5, np.float32))


def test_faiss_without_gpus(monkeypatch):
    halves, _ = halve(draw("random", 2, 0))
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(MissingExtraError, match=r"FAISS for GPUs.*finegrain\[gpu\]"):
        FaissScan.on_gpu(halves)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    with pytest.raises(PlanError, match="no GPU: 1 found, 1 asked for"):
        FaissScan.on_gpu(halves, device=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_answer_is_the_same():
    vectors, queries = draw("near", 5000, 0), draw("random", 20, 1)
    halves, halving = halve(vectors)
    ids = np.arange(5000)
    found = SettledTopK(ids, vectors, halving, TorchScan(halves, "cuda")).search(queries, 10)
    assert found == ExactTopK(ids, vectors).search(queries, 10)
