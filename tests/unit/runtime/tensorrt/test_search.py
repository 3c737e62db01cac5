"""The search in one launch, against stand-ins, beside the exact search."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, PlanError, QueryError
from finegrain.plan import Plan
from finegrain.runtime.tensorrt import resident
from finegrain.runtime.tensorrt.search import SEARCH, TensorRtSearch
from finegrain.runtime.topk.exact import ExactTopK

CONTEXT, DIM, ROWS, DEPTH = 40, 8, 150, 40
LENGTHS = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(resident, "CAPACITY_STEP", 64)
    monkeypatch.setattr(resident, "SLICE_ROWS", 50)


@pytest.fixture
def plan(make_plan):
    inputs, outputs = ["embeddings", "gallery", "offsets"], ["rows", "estimates"]
    graph = {"inputs": inputs, "outputs": outputs, "dim": DEPTH}
    return make_plan(extra={SEARCH: json.dumps(graph).encode()})


@pytest.fixture
def open_search(plan, backend, tmp_path):
    def open_it(vectors, ids=None, path=plan):
        ids = np.arange(len(vectors)) * 2 + 1 if ids is None else ids
        cache = tmp_path / "cache"
        return TensorRtSearch(Plan(path), ids, vectors, backend=backend.name, cache=cache)

    return open_it


def vectors_of(rows, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def captions(rng, rows, length):
    # Small ids, for embeddings that fp16 can hold.
    ids = rng.integers(0, 4, (rows, length)).astype(np.int32)
    return ids, rng.integers(0, length, rows).astype(np.int32)


@pytest.fixture
def search(open_search):
    with open_search(vectors_of(ROWS)) as search:
        yield search


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(0, 4),
    length=st.integers(1, CONTEXT),
    k=st.sampled_from([1, 10, DEPTH, DEPTH + 1, 500]),
    seed=st.integers(0, 99),
)
def test_the_answer_is_the_exact_one(search, references, rows, length, k, seed):
    ids, eot = captions(np.random.default_rng(seed), rows, length)
    exact = ExactTopK(np.arange(ROWS) * 2 + 1, vectors_of(ROWS))
    assert search.search(ids, eot, k) == exact.search(references.texts(ids, eot), k)


@pytest.mark.parametrize("rows", [1, 39, 40, 63, 64, 65])
def test_rows_that_are_no_vectors_are_never_found(open_search, references, rows):
    """Their products are zero, and those of all vectors negative."""
    ids, eot = captions(np.random.default_rng(3), 1, 9)
    query = references.texts(ids, eot)
    away = vectors_of(rows) * 0.1 - query / np.linalg.norm(query)
    with open_search(away) as search:
        (hits,) = search.search(ids, eot, 10)
    (wanted,) = ExactTopK(np.arange(rows) * 2 + 1, away).search(query, 10)
    assert hits == wanted
    assert len(hits) == min(rows, 10)


def test_vectors_that_fp16_cannot_tell_apart(open_search, references):
    near = np.float32([1, 0, 0, 0, 0, 0, 0, 0]) + 1e-5 * vectors_of(ROWS)
    ids, eot = captions(np.random.default_rng(3), 2, 9)
    with open_search(near) as search:
        found = search.search(ids, eot, 5)
    exact = ExactTopK(np.arange(ROWS) * 2 + 1, near)
    assert found == exact.search(references.texts(ids, eot), 5)


def test_a_search_is_one_launch(search, trt, cuda):
    # For each length both engines ran once to warm up and once into the capture; and for a
    # vector one of them.
    assert trt.executions == 2 * 2 * LENGTHS + 2
    cuda.calls.clear()
    trt.seen.clear()
    search.search(*captions(np.random.default_rng(0), 1, 9), 10)
    assert cuda.calls == {"cudaSetDevice": 1, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 1}
    assert [set(seen) for seen in trt.seen] == [
        {"ids", "eot"},
        {"embeddings", "gallery", "offsets"},
    ]
    assert trt.seen[0]["ids"].shape == (1, 16)


def test_the_gallery_is_in_the_memory_of_the_gpu(search, trt):
    search.search(*captions(np.random.default_rng(0), 1, 9), 10)
    gallery, offsets = (trt.seen[-1][name] for name in ("gallery", "offsets"))
    np.testing.assert_array_equal(gallery[:ROWS], vectors_of(ROWS).astype(np.float16))
    assert gallery.shape == (192, DIM)
    assert not gallery[ROWS:].any()
    assert not offsets[:ROWS].any()
    assert (offsets[ROWS:] == -np.inf).all()


def test_a_gallery_that_grows_builds_no_other_tower(open_search, trt):
    for rows, builds in ((100, 2), (128, 2), (129, 3)):
        open_search(vectors_of(rows)).close()
        assert trt.builds == builds


def test_close_frees_everything_once(open_search, cuda):
    search = open_search(vectors_of(ROWS))
    search.close()
    assert not cuda.leaks
    search.close()
    with pytest.raises(PlanError, match="its search is closed; open it again"):
        search.search(np.ones((1, 3), np.int32), np.zeros(1, np.int32), 1)


@pytest.mark.parametrize(
    "call", ["cudaHostAlloc", "cudaMalloc", "cudaMemcpyAsync", "cudaStreamBeginCapture"]
)
def test_a_failed_opening_frees_everything(open_search, cuda, call):
    cuda.fails[call] = 2
    with pytest.raises(PlanError, match=f"CUDA failed in {call}"):
        open_search(vectors_of(ROWS))
    assert not cuda.leaks


def test_a_plan_without_a_search(open_search, make_plan):
    with pytest.raises(PlanError, match=r"has no search.onnx; say search_depth=128"):
        open_search(vectors_of(ROWS), path=make_plan())


def test_vectors_of_another_plan(open_search):
    with pytest.raises(GalleryError, match=r"expected vectors \[150, 8\], got \[150, 5\]"):
        open_search(vectors_of(ROWS)[:, :5])
    with pytest.raises(GalleryError, match=r"expected vectors \[3, 8\], got \[150, 8\]"):
        open_search(vectors_of(ROWS), ids=np.arange(3))


def test_too_few_vectors_or_too_many(open_search, monkeypatch, cuda):
    with pytest.raises(GalleryError, match="expected 1 to 268435392 vectors of width 8, got 0"):
        open_search(vectors_of(0))
    monkeypatch.setattr(resident, "MAX_NUMBERS", 1100)
    open_search(vectors_of(128)).close()
    with pytest.raises(GalleryError, match="expected 1 to 128 vectors of width 8, got 129"):
        open_search(vectors_of(129))
    assert not cuda.leaks


def test_a_gpu_without_room(open_search, cuda):
    cuda.free = 2**10
    with pytest.raises(GalleryError, match=r"expected 0.0 MiB of free GPU memory.*got 0.0 MiB"):
        open_search(vectors_of(ROWS))
    assert not cuda.leaks


def test_captions_over_the_context(search):
    with pytest.raises(QueryError, match="at most 40 tokens, got 41"):
        search.search(np.ones((1, 41), np.int32), np.zeros(1, np.int32), 1)
