"""A gallery on a GPU after random changes, compared with a sort of all scores in float64."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery, Hit
from finegrain.index.gpu import index as gpu_index
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.torch_scan import TorchScan

DIM, K = 16, 7
START = datetime(2026, 5, 1, tzinfo=UTC)
FILTERS = {
    None: lambda pid: True,
    "pid < 8": lambda pid: pid < 8,
    "pid = 3 or pid = 4": lambda pid: pid in (3, 4),
    "pid = 0": lambda pid: pid == 0,
}

steps = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 90), st.sampled_from([None, 1, 2])),
    st.tuples(st.just("delete"), st.floats(0, 0.4), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 2), st.none()),
)


def torch_scan(rows, spare, dim):
    return TorchScan(np.empty((0, dim), np.float16), "cpu", capacity=rows + spare)


def signs(random, rows):
    """Unit vectors whose values are plus and minus a quarter."""
    return random.choice(np.float32([-0.25, 0.25]), (rows, DIM))


def literal(pictures, query, k, fits, group_by):
    """Score everything that fits, sort, and keep the first of each group."""
    scored = [
        (-np.float32(vector.astype(np.float64) @ query.astype(np.float64)), id_, pid)
        for id_, (vector, pid) in pictures.items()
        if fits(pid)
    ]
    kept, seen = [], set()
    for score, id_, pid in sorted(scored):
        if group_by is None or pid not in seen:
            kept.append(Hit(id_, float(-score)))
            seen.add(pid)
    return kept[:k]


@settings(max_examples=12, deadline=None)
@given(history=st.lists(steps, min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_answers_are_exact_after_any_changes(history, seed):
    random = np.random.default_rng(seed)
    now, pictures, ends = START, {}, {}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("finegrain.times.now", lambda: now)
        patch.setattr(gpu_index, "FEW_ROWS", 10)
        patch.setattr(gpu_index, "LEAST_SPARE", 30)
        with Gallery(Path(folder) / "g", dim=DIM, index=Gpu(torch_scan)) as gallery:
            for what, amount, hours in [("add", 40, None), *history]:
                if what == "add":
                    # Sums of quarters are exact, and many scores are equal.
                    vectors = signs(random, amount)
                    pids = random.integers(0, 10, amount).tolist()
                    after = None if hours is None else timedelta(hours=hours)
                    new = gallery.add(vectors, [None] * amount, pids=pids, expire_after=after)
                    pictures |= zip(new, zip(vectors, pids, strict=True), strict=True)
                    ends |= dict.fromkeys(new, None if after is None else now + after)
                elif what == "delete":
                    gone = [id_ for id_ in pictures if random.random() < amount]
                    gallery.delete(gone)
                    pictures = {i: picture for i, picture in pictures.items() if i not in gone}
                else:
                    now += timedelta(hours=amount)
                    over = {i for i, end in ends.items() if end is not None and end <= now}
                    pictures = {i: picture for i, picture in pictures.items() if i not in over}
                queries = signs(random, 2)
                for where, fits in FILTERS.items():
                    for group_by in (None, "pid"):
                        result = gallery.search(queries, K, where, group_by=group_by)
                        assert result == [
                            literal(pictures, query, K, fits, group_by) for query in queries
                        ]
