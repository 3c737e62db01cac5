"""A gallery on a GPU that TensorRT searches, with stand-ins, compared with a gallery in memory."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.errors import PlanError, QueryError
from finegrain.gallery import Gallery
from finegrain.index.gpu import index as gpu_index
from finegrain.index.gpu import resident
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.scans import scan_maker
from finegrain.plan import SEARCH, TOKENIZER, Plan
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.search.searcher import Searcher

DIM, CONTEXT, ROWS, DEPTH = 8, 40, 150, 60
IDS, EOT = np.array([[3, 1, 2, 0, 2]], np.int32), np.array([4], np.int32)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(resident, "CAPACITY_STEP", 64)
    monkeypatch.setattr(resident, "SLICE_ROWS", 50)
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 5)
    monkeypatch.setattr(gpu_index, "LEAST_SPARE", 16)


@pytest.fixture
def plan(make_plan):
    inputs, outputs = ["embeddings", "gallery", "offsets"], ["rows", "estimates"]
    graph = {"inputs": inputs, "outputs": outputs, "dim": DEPTH}
    tokenizer = clip_tokenizer(CONTEXT).to_json().encode()
    return make_plan(extra={SEARCH: json.dumps(graph).encode(), TOKENIZER: tokenizer})


@pytest.fixture
def gallery(plan, backend, tmp_path, cuda):
    make = scan_maker(Plan(plan), backend.name)
    with Gallery(tmp_path / "g", dim=DIM, index=Gpu(make)) as gallery:
        yield gallery
    assert not cuda.leaks


def vectors_of(rows, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(gallery, rows=ROWS, seed=0):
    return gallery.add(
        vectors_of(rows, seed), [None] * rows, pids=[number % 20 for number in range(rows)]
    )


def check(gallery, references, k=10, where=None, **thinning):
    """Check that answers by caption and by vector equal those of the gallery in memory."""
    query = references.texts(IDS, EOT)
    with Gallery(gallery.path, dim=DIM) as plain:
        (wanted,) = plain.search(query, k, where, **thinning)
        assert gallery.search_caption(IDS, EOT, k, where, **thinning) == wanted
        queries = np.concatenate([query, vectors_of(2, seed=9)])
        assert gallery.search(queries, k, where, **thinning) == plain.search(
            queries, k, where, **thinning
        )
    return [hit.id for hit in wanted]


@pytest.mark.parametrize("where", [None, "pid < 15", "pid in (3, 4)", "pid = 30"])
def test_answers_equal_those_of_the_index(gallery, references, where):
    fill(gallery)
    for k in (1, 10, DEPTH, DEPTH + 1, 500):
        check(gallery, references, k, where)
    check(gallery, references, 5, where, group_by="pid")
    check(gallery, references, 5, where, distinct=0.7)


def test_a_text_is_one_launch(gallery, cuda):
    fill(gallery)
    gallery.search_caption(IDS, EOT, 5)
    cuda.calls.clear()
    gallery.search_caption(IDS, EOT, 5)
    assert cuda.calls == {"cudaSetDevice": 1, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 1}


def test_it_follows_changes_of_the_file(gallery, references, trt):
    fill(gallery)
    check(gallery, references)
    builds = trt.builds
    fill(gallery, 30, seed=1)
    gallery.delete(check(gallery, references)[:3])
    check(gallery, references)
    assert trt.builds == builds  # 192 rows have room
    fill(gallery, 30, seed=2)
    check(gallery, references)
    assert trt.builds == builds + 1  # a new search engine, and no new tower


def test_a_gallery_may_have_fewer_pictures_than_the_scan_selects(gallery, references):
    fill(gallery, 3)
    assert len(check(gallery, references)) == 3


def test_an_empty_gallery_has_no_hits(gallery):
    assert gallery.search_caption(IDS, EOT, 5) is None


def test_k_is_checked_before_the_launch(gallery):
    fill(gallery)
    with pytest.raises(QueryError):
        gallery.search_caption(IDS, EOT, 0)


def test_a_replaced_plan_is_refused(gallery, make_plan):
    fill(gallery)
    make_plan()
    with pytest.raises(PlanError, match="was replaced by another plan; open the searcher again"):
        gallery.search(vectors_of(1), 5)


def test_a_searcher_queries_by_caption(plan, backend, references, cuda, monkeypatch):
    with Searcher(plan, runtime=backend.name, vectors="gpu") as searcher:
        # Small ids, so that fp16 can represent the embeddings.
        tokens = SimpleNamespace(ids=np.pad(IDS, ((0, 0), (0, 9))), eot=EOT)
        searcher._encoder.tokenizer = SimpleNamespace(
            encode=lambda captions: tokens, beyond_context=lambda text: ""
        )
        assert searcher.add([], progress=False).ids == []  # creates the gallery
        fill(searcher.gallery)
        searcher.query("red coat")
        cuda.calls.clear()
        result = searcher.query("red coat")
        assert cuda.calls["cudaGraphLaunch"] == 1
        with Gallery(searcher.gallery.path) as plain:
            (wanted,) = plain.search(references.texts(IDS, EOT), 10)
        assert [match.id for match in result] == [hit.id for hit in wanted]
        assert len(searcher.query(np.full((4, 2, 3), 200, np.uint8))) == 10
    assert not cuda.leaks


@pytest.mark.parametrize("trusted", [False, True])
def test_engines_of_a_plan_are_used_with_trust_only(plan, monkeypatch, trusted):
    seen = []
    monkeypatch.setattr(
        "finegrain.runtime.tensorrt.TensorRtRuntime",
        lambda plan, *, backend, trust_engines: seen.append((backend, trust_engines)),
    )
    Encoder.from_plan(Plan(plan), runtime="tensorrt-rtx", trust_engines=trusted)
    assert seen == [("tensorrt-rtx", trusted)]
