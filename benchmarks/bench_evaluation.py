"""The protocol of ICFG-PEDES: 19,848 captions and as many pictures, compared with a baseline.

The baseline evaluates as research code for person search does: it computes the whole matrix of
similarities, sorts it by position, gathers the labels, and computes cumulative sums over all of it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.metrics import retrieval_metrics

SIZE = 19_848
PEOPLE = 1_000
WIDTH = 512

BASELINE = "plain"  # its key in the files of results
Metrics = tuple[float, float, float]


def embeddings(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of captions and pictures, and their pids, with distances like those of a trained
    model."""
    rng = np.random.default_rng(0)
    pids = rng.integers(0, PEOPLE, size)
    people = rng.standard_normal((PEOPLE, WIDTH))
    made = (people[pids] + 2.5 * rng.standard_normal((size, WIDTH)) for _ in range(2))
    texts, images = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in made
    )
    return texts, images, pids


def finegrain_metrics(texts: np.ndarray, images: np.ndarray, pids: np.ndarray) -> Metrics:
    metrics = retrieval_metrics(texts, images, pids, pids)
    return metrics.rank1, metrics.mAP, metrics.mINP


def baseline(texts: np.ndarray, images: np.ndarray, pids: np.ndarray) -> Metrics:
    people = torch.from_numpy(pids)
    similarity = torch.from_numpy(texts) @ torch.from_numpy(images).T
    order = similarity.argsort(dim=1, descending=True)
    hits = people[order] == people[:, None]
    cumulative_hits = hits.cumsum(dim=1)
    last = [row.nonzero()[-1] for row in hits]
    inverse_penalty = torch.cat([cumulative_hits[i, at] / (at + 1.0) for i, at in enumerate(last)])
    columns = [cumulative_hits[:, rank] / (rank + 1.0) for rank in range(cumulative_hits.shape[1])]
    precision = (torch.stack(columns, dim=1) * hits).sum(dim=1) / hits.sum(dim=1)
    rank1 = hits[:, 0].float().mean()
    return tuple(100 * x.item() for x in (rank1, precision.mean(), inverse_penalty.mean()))  # type: ignore[return-value]


def measured(way: Callable[..., Metrics], size: int) -> tuple[Metrics, float, float]:
    """Metrics, seconds, and peak memory in MB beyond the input.

    Must run in a process of its own.
    """
    inputs = embeddings(size)
    way(*(part[:64] for part in inputs))  # loads libraries before the measurement
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak
    before = resident("VmRSS")
    start = time.perf_counter()
    metrics = way(*inputs)
    seconds = time.perf_counter() - start
    return metrics, seconds, resident("VmHWM") - before


def resident(which: str) -> float:
    """Memory of this process in MB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def in_own_process(way: Callable[..., Metrics], size: int) -> tuple[Metrics, float, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, way, size).result()


def test_evaluation(benchmark: Any, record: Callable[..., None], short: bool) -> None:
    size = SIZE // 8 if short else SIZE
    reference = in_own_process(baseline, size)
    ours = benchmark.pedantic(in_own_process, args=(finegrain_metrics, size), rounds=1)
    assert ours[0] == pytest.approx(reference[0], abs=1e-3)
    summary = {
        "queries": size,
        "seconds": {"finegrain": round(ours[1], 2), BASELINE: round(reference[1], 2)},
        "peak_mb": {"finegrain": round(ours[2]), BASELINE: round(reference[2])},
        "ratio": round(reference[1] / ours[1], 2),
        "memory_share": round(ours[2] / reference[2], 4),
    }
    benchmark.extra_info.update(summary)
    record("evaluation", summary)
    assert summary["ratio"] > 1
    assert summary["memory_share"] < 1
