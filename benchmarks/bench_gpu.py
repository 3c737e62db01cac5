"""Towers on a GPU, and ``Searcher(vectors="gpu")`` compared with vectors in memory.

Skipped without a GPU.

No machine of this project has run this file yet, and no results of it are published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finegrain.exporters import ExportProfile, load_profile
from finegrain.exporters.search_graph import search_graph
from finegrain.gallery import Gallery
from finegrain.plan import REQUIRED, SEARCH, Plan, write_plan
from finegrain.runtime.tensorrt import TensorRtRuntime
from finegrain.search.searcher import Searcher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

EXPORT = Path(__file__).parents[1] / "export"
K, DEPTH, WIDTH = 10, 128, 512
SIZES = (100_000, 1_000_000)
ADD_ROWS = 10_000
WARM_UP = 20
START, END = 49406, 49407
QUERIES = ("woman in red coat", "man with a backpack", "person in a striped dress and white shoes")

Captions = tuple[NDArray[np.int32], NDArray[np.int32]]


def caption(length: int, seed: int = 0) -> Captions:
    """Ids of a random caption, ``[1, L]``, and the position of its end."""
    ids = np.random.default_rng(seed).integers(1, START, (1, length)).astype(np.int32)
    ids[0, 0], ids[0, -1] = START, END
    return ids, np.array([length - 1], np.int32)


def timed(work: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Percentiles of the latency of a single caller."""
    for _ in range(WARM_UP):
        work()
    seconds = np.empty(rounds)
    for turn in range(rounds):
        start = perf_counter()
        work()
        seconds[turn] = perf_counter() - start
    percentiles = np.percentile(1e3 * seconds, (50, 95, 99)).round(3).tolist()
    return {**dict(zip(("p50_ms", "p95_ms", "p99_ms"), percentiles, strict=True)), "rounds": rounds}


def gpu() -> dict[str, str | None]:
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["one_launch", "two_steps"])
def plan(
    request: pytest.FixtureRequest,
    shipped: Callable[[ExportProfile], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """ViT-B/16 in fp16, with ``search.onnx`` (text tower and search in one launch) or without."""
    towers = Plan(shipped(load_profile(EXPORT / "tensorrt_fp16.py")))
    members = {name: towers.take(name) for name in REQUIRED}
    if request.param:
        members[SEARCH] = search_graph(embed_dim=WIDTH, depth=DEPTH, opset=18)
    path = tmp_path_factory.mktemp("gpu") / "model.plan"
    write_plan(path, towers.manifest, members)
    return path


@pytest.fixture(scope="module")
def runtime(plan: Path, backend: str) -> Iterator[TensorRtRuntime]:
    with TensorRtRuntime(Plan(plan), backend=backend) as runtime:
        yield runtime


@pytest.fixture(scope="module", params=SIZES)
def gallery(request: pytest.FixtureRequest, plan: Path) -> Path:
    """A gallery of the plan, filled with random unit vectors."""
    path = plan.with_name(f"{request.param}.gallery")
    vectors = np.random.default_rng(0).standard_normal((request.param, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fingerprint = Plan(plan).manifest.fingerprint
    with Gallery(path, fingerprint=fingerprint, dim=WIDTH) as gallery:
        for start in range(0, len(vectors), ADD_ROWS):
            some = vectors[start : start + ADD_ROWS]
            gallery.add(some, [f"crops/{start + row}.jpg" for row in range(len(some))])
    return path


def test_towers(runtime, backend, rounds, record):
    timings = {}
    for length in (16, 32, 77):
        words = caption(length)
        timings[f"text_b1_{length}_tokens"] = timed(
            lambda words=words: runtime.encode_texts(*words), rounds(1000)
        )
    for batch in (1, 8, 64):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, 384, 128), np.uint8)
        timings[f"image_b{batch}"] = timed(
            lambda pixels=pixels: runtime.encode_images(pixels), rounds(1000)
        )
    record(f"gpu_towers_{backend}", {**gpu(), "model": "ViT-B/16 random weights", **timings})


def test_query(plan, gallery, backend, rounds, record, request):
    """Time a text query, after a check that both searchers give the same matches."""
    open_searcher = partial(Searcher, plan, gallery=gallery, runtime=backend)
    with open_searcher(vectors="memory") as searcher:
        expected = [[(m.id, m.score) for m in searcher.query(query, K)] for query in QUERIES]
        memory = timed(lambda: searcher.query(QUERIES[0], K), rounds(1000))
    with open_searcher(vectors="gpu") as searcher:
        answers = [[(m.id, m.score) for m in searcher.query(query, K)] for query in QUERIES]
        assert answers == expected
        on_gpu = timed(lambda: searcher.query(QUERIES[0], K), rounds(1000))
    steps = request.node.callspec.id
    record(f"gpu_query_{steps}", {**gpu(), "k": K, "vectors_gpu": on_gpu, "vectors_memory": memory})
