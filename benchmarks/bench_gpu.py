"""Towers, and queries over a gallery that stays on the GPU. Skipped where there is no GPU.

No machine of this project has run it yet, and no result of it is published.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finegrain.exporters import ExportProfile, load_profile
from finegrain.exporters.search_graph import search_graph
from finegrain.plan import REQUIRED, Plan, write_plan
from finegrain.runtime.tensorrt import TensorRtRuntime
from finegrain.runtime.tensorrt.search import SEARCH, TensorRtSearch
from finegrain.runtime.topk.exact import ExactTopK
from finegrain.runtime.topk.faiss_scan import FaissScan
from finegrain.runtime.topk.settled import SettledTopK, halve
from finegrain.runtime.topk.torch_scan import TorchScan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

EXPORT = Path(__file__).parents[1] / "export"
K, DEPTH, WIDTH = 10, 128, 512
SIZES = (100_000, 1_000_000)
WARM_UP = 20
START, END = 49406, 49407

Captions = tuple[NDArray[np.int32], NDArray[np.int32]]


def caption(length: int, seed: int = 0) -> Captions:
    """Ids of a made-up caption, ``[1, L]``, and its end."""
    ids = np.random.default_rng(seed).integers(1, START, (1, length)).astype(np.int32)
    ids[0, 0], ids[0, -1] = START, END
    return ids, np.array([length - 1], np.int32)


def timed(work: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Percentiles of what one caller waits."""
    for _ in range(WARM_UP):
        work()
    seconds = np.empty(rounds)
    for turn in range(rounds):
        start = perf_counter()
        work()
        seconds[turn] = perf_counter() - start
    found = np.percentile(1e3 * seconds, (50, 95, 99)).round(3).tolist()
    return {**dict(zip(("p50_ms", "p95_ms", "p99_ms"), found, strict=True)), "rounds": rounds}


def gpu() -> dict[str, str | None]:
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


@pytest.fixture(scope="module")
def plan(
    shipped: Callable[[ExportProfile], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """ViT-B/16 in fp16, with a search."""
    plain = Plan(shipped(load_profile(EXPORT / "tensorrt_fp16.py")))
    members = {name: plain.take(name) for name in REQUIRED}
    members[SEARCH] = search_graph(embed_dim=WIDTH, depth=DEPTH, opset=18)
    path = tmp_path_factory.mktemp("gpu") / "model.plan"
    write_plan(path, plain.manifest, members)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of this run, so that a second test builds none."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def runtime(plan: Path, backend: str, cache: Path) -> Iterator[TensorRtRuntime]:
    with TensorRtRuntime(Plan(plan), backend=backend, cache=cache) as runtime:
        yield runtime


@pytest.fixture(scope="module", params=SIZES)
def gallery(request: pytest.FixtureRequest) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and random unit vectors."""
    vectors = np.random.default_rng(0).standard_normal((request.param, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.arange(1, request.param + 1), vectors


def test_towers(runtime, backend, rounds, record):
    found = {}
    for length in (16, 32, 77):
        words = caption(length)
        found[f"text_b1_{length}_tokens"] = timed(
            lambda words=words: runtime.encode_texts(*words), rounds(1000)
        )
    for batch in (1, 8, 64):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, 384, 128), np.uint8)
        found[f"image_b{batch}"] = timed(
            lambda pixels=pixels: runtime.encode_images(pixels), rounds(1000)
        )
    record(f"gpu_towers_{backend}", {**gpu(), "model": "ViT-B/16 random weights", **found})


def check(search: Callable[[Captions], Any], runtime, gallery) -> None:
    """Only like answers make times comparable; this also says how products are summed."""
    exact = ExactTopK(*gallery)
    for seed in range(3):
        words = caption(16, seed)
        (found,), (wanted,) = search(words), exact.search(runtime.encode_texts(*words), K)
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted])


def test_query_in_one_launch(plan, runtime, backend, cache, gallery, rounds, record):
    words = caption(16)
    with TensorRtSearch(Plan(plan), *gallery, backend=backend, cache=cache) as search:
        check(lambda words: search.search(*words, K), runtime, gallery)
        found = timed(lambda: search.search(*words, K), rounds(1000))
    record(f"gpu_query_{backend}_{len(gallery[0])}", {**gpu(), "k": K, **found})


@pytest.mark.parametrize("scan", ["torch", "faiss"])
def test_query_in_two_steps(scan, runtime, backend, gallery, rounds, record):
    halves, halving = halve(gallery[1])
    if scan == "faiss":
        if not hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
            pytest.skip("FAISS is the one for CPUs")
        estimates = FaissScan.on_gpu(halves)
    else:
        estimates = TorchScan(halves, "cuda")
    index = SettledTopK(*gallery, halving, estimates)

    def search(words: Captions) -> Any:
        return index.search(runtime.encode_texts(*words), K)

    check(search, runtime, gallery)
    words = caption(16)
    found = timed(lambda: search(words), rounds(1000))
    record(f"gpu_query_{backend}_{scan}_{len(gallery[0])}", {**gpu(), "k": K, **found})
