"""A scan by TensorRT in one launch, with stand-ins, compared with exact search."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, PlanError, QueryError
from finegrain.index.exact import VectorIndex
from finegrain.index.gpu import resident
from finegrain.index.gpu.halves import halve
from finegrain.index.gpu.mirror import Mirror
from finegrain.index.gpu.tensorrt_scan import TensorRtScan
from finegrain.plan import SEARCH, Plan

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
def open_scan(plan, backend, tmp_path):
    def open_it(vectors, path=plan):
        cache = tmp_path / "cache"
        scan = TensorRtScan(Plan(path), len(vectors), backend=backend.name, cache=cache)
        scan.append(halve(vectors)[0])
        return scan

    return open_it


def vectors_of(rows, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def captions(rng, rows, length):
    # Small ids, so that fp16 can represent the embeddings.
    ids = rng.integers(0, 4, (rows, length)).astype(np.int32)
    return ids, rng.integers(0, length, rows).astype(np.int32)


@pytest.fixture
def scan(open_scan):
    scan = open_scan(vectors_of(ROWS))
    yield scan
    scan.close()


class Unfilled:
    """A scan that already has its rows and does not add them again."""

    def __init__(self, scan):
        self.scan = scan
        self.capacity, self.coarseness, self.max_depth = scan.capacity, scan.coarseness, DEPTH

    def append(self, halves):
        pass


def hits_of(scan, vectors, answer, k):
    """The hits of a launch if it proves them, and otherwise those of the index."""
    index = VectorIndex(DIM)
    index.add(np.arange(len(vectors)) * 2 + 1, vectors)
    mirror = Mirror(index, Unfilled(scan))
    assert mirror.follow(index)
    error = mirror.error(answer.query, answer.sent)
    shown = mirror.shown(None)
    hits = mirror.settled(answer.query, answer.rows, answer.estimates, error, k, shown)
    (wanted,) = index.search(answer.embedding[None], k)
    return hits, wanted


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(0, 4),
    length=st.integers(1, CONTEXT),
    k=st.sampled_from([1, 10, DEPTH, DEPTH + 1, 500]),
    seed=st.integers(0, 99),
)
def test_proven_hits_equal_the_exact_answer(scan, references, rows, length, k, seed):
    ids, eot = captions(np.random.default_rng(seed), rows, length)
    answers = scan.ask(ids, eot)
    embeddings = references.texts(ids, eot)
    assert len(answers) == rows
    for answer, embedding in zip(answers, embeddings, strict=True):
        np.testing.assert_array_equal(answer.embedding, embedding)
        hits, wanted = hits_of(scan, vectors_of(ROWS), answer, k)
        assert hits in (None, wanted)
        assert k > DEPTH // 2 or hits is not None or not embedding.any()


@pytest.mark.parametrize("rows", [1, 39, 40, 63, 64, 65])
def test_empty_rows_are_never_returned_before_vectors(open_scan, references, rows):
    """The products of empty rows are zero, and those of all vectors are negative."""
    ids, eot = captions(np.random.default_rng(3), 1, 9)
    query = references.texts(ids, eot)
    away = vectors_of(rows) * 0.1 - query / np.linalg.norm(query)
    scan = open_scan(away)
    (answer,) = scan.ask(ids, eot)
    hits, wanted = hits_of(scan, away, answer, 10)
    scan.close()
    assert hits == wanted
    assert len(hits) == min(rows, 10)


def test_vectors_that_are_equal_in_fp16_are_not_proven(open_scan):
    near = np.float32([1, 0, 0, 0, 0, 0, 0, 0]) + 1e-5 * vectors_of(ROWS)
    scan = open_scan(near)
    for answer in scan.ask(*captions(np.random.default_rng(3), 2, 9)):
        assert hits_of(scan, near, answer, 5)[0] is None
    scan.close()


def test_a_caption_is_one_launch(scan, trt, cuda):
    # For each length, both engines ran once as warm-up and once in the capture. For a vector, one
    # engine did.
    assert trt.executions == 2 * 2 * LENGTHS + 2
    cuda.calls.clear()
    trt.seen.clear()
    scan.ask(*captions(np.random.default_rng(0), 1, 9))
    assert cuda.calls == {"cudaSetDevice": 1, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 1}
    assert [set(seen) for seen in trt.seen] == [
        {"ids", "eot"},
        {"embeddings", "gallery", "offsets"},
    ]
    assert trt.seen[0]["ids"].shape == (1, 16)


def test_the_gallery_is_in_the_memory_of_the_gpu(scan, trt):
    scan.ask(*captions(np.random.default_rng(0), 1, 9))
    gallery, offsets = (trt.seen[-1][name] for name in ("gallery", "offsets"))
    np.testing.assert_array_equal(gallery[:ROWS], vectors_of(ROWS).astype(np.float16))
    assert gallery.shape == (192, DIM)
    assert not gallery[ROWS:].any()
    assert not offsets[:ROWS].any()
    assert (offsets[ROWS:] == -np.inf).all()


def test_a_growing_gallery_builds_no_new_tower(open_scan, trt):
    for rows, builds in ((100, 2), (128, 2), (129, 3)):
        open_scan(vectors_of(rows)).close()
        assert trt.builds == builds


def test_close_frees_everything_once(open_scan, cuda):
    scan = open_scan(vectors_of(ROWS))
    scan.close()
    assert not cuda.leaks
    scan.close()
    with pytest.raises(PlanError, match="its search is closed; open it again"):
        scan.ask(np.ones((1, 3), np.int32), np.zeros(1, np.int32))


@pytest.mark.parametrize(
    "call", ["cudaHostAlloc", "cudaMalloc", "cudaMemcpyAsync", "cudaStreamBeginCapture"]
)
def test_a_failed_opening_frees_everything(open_scan, cuda, call):
    cuda.fails[call] = 2
    with pytest.raises(PlanError, match=f"CUDA failed in {call}"):
        open_scan(vectors_of(ROWS))
    assert not cuda.leaks


def test_a_plan_without_a_search_graph_is_refused(open_scan, make_plan):
    with pytest.raises(PlanError, match=r"has no search.onnx; say search_depth=128"):
        open_scan(vectors_of(ROWS), path=make_plan())


def test_too_few_or_too_many_vectors_are_refused(open_scan, monkeypatch, cuda):
    with pytest.raises(GalleryError, match="expected 1 to 268435392 vectors of width 8, got 0"):
        open_scan(vectors_of(0))
    monkeypatch.setattr(resident, "MAX_NUMBERS", 1100)
    open_scan(vectors_of(128)).close()
    with pytest.raises(GalleryError, match="expected 1 to 128 vectors of width 8, got 129"):
        open_scan(vectors_of(129))
    assert not cuda.leaks


def test_a_gpu_without_enough_memory_is_an_error(open_scan, cuda):
    cuda.free = 2**10
    with pytest.raises(GalleryError, match=r"expected 0.0 MiB of free GPU memory.*got 0.0 MiB"):
        open_scan(vectors_of(ROWS))
    assert not cuda.leaks


def test_captions_beyond_the_context_are_refused(scan):
    with pytest.raises(QueryError, match="at most 40 tokens, got 41"):
        scan.ask(np.ones((1, 41), np.int32), np.zeros(1, np.int32))
