"""Approximate search with full effort compared with exact search, after random changes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.index.approximate import ApproximateIndex, Ivf, RaBitQ, kinds, truth
from finegrain.index.approximate import index as approximate_index
from finegrain.index.approximate.truth import everything, exact_best, fetched
from finegrain.index.biases import Biases
from finegrain.index.estimate import Query
from finegrain.index.exact import VectorIndex

WIDTH = 20
ALL_EFFORT = (RaBitQ(candidates=1024, bits=4), Ivf(share=1.0, candidates=1024))
"""Kinds that read every row with full effort; links of a graph need not reach all rows."""


def random_points(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal((count, WIDTH))


def duplicates(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal((5, WIDTH))[random.integers(5, size=count)]


def cluster(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal(WIDTH) + 1e-6 * random.standard_normal((count, WIDTH))


def corners(random: np.random.Generator, count: int) -> np.ndarray:
    return random.choice([-0.5, 0.5], (count, WIDTH))


def zeros(random: np.random.Generator, count: int) -> np.ndarray:
    return np.zeros((count, WIDTH))


POINTS = (random_points, duplicates, cluster, corners, zeros)


class Memory:
    """Vectors and ids in memory, with the interface of a gallery's storage."""

    dim = WIDTH

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def ids(self) -> np.ndarray:
        return np.array(sorted(self.rows), np.int64)

    def vectors(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        return {id_: self.rows[id_] for id_ in ids if id_ in self.rows}

    def vectors_after(self, last_id: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        ids = [id_ for id_ in sorted(self.rows) if id_ > last_id]
        for start in range(0, len(ids), 70):
            some = ids[start : start + 70]
            yield np.array(some), np.stack([self.rows[id_] for id_ in some])


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate_index, "TAIL_ROWS", 128)
        patch.setattr(kinds, "GATHER_ROWS", 8)
        patch.setattr(truth, "_FETCH_ROWS", 50)
        yield


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    points=st.sampled_from(POINTS),
    scale=st.sampled_from([0, 1e-20, 1, 1e10]),
    k=st.integers(1, 400),
    share=st.sampled_from([None, 0, 0.05, 0.9]),
    bias=st.sampled_from([0, 0.1, 100]),
)
def test_reading_in_chunks_equals_the_index_in_memory(seed, points, scale, k, share, bias):
    random = np.random.default_rng(seed)
    rows = points(random, 300).astype(np.float32)
    memory = Memory()
    memory.rows = dict(zip((np.arange(300) * 2 + 1).tolist(), rows, strict=True))
    biases = Biases(memory.ids(), (bias * random.standard_normal(300)).astype(np.float32))
    held = VectorIndex(WIDTH, biases)
    held.add(memory.ids(), rows)
    queries = (scale * random.standard_normal((3, WIDTH))).astype(np.float32)
    allowed = None if share is None else np.flatnonzero(random.random(700) < share)
    chunks = everything(memory) if allowed is None else fetched(memory, allowed)
    wide = [Query(query.astype(np.float64)) for query in queries]
    result = exact_best(chunks, wide, k, biases)
    assert result == held.search(queries, k, allowed)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 300)),
        st.tuples(st.just("remove"), st.floats(0, 1)),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("kind", ALL_EFFORT, ids=lambda kind: type(kind).__name__)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=steps,
    share=st.sampled_from([None, 0.01, 0.4, 0.9]),
    k=st.integers(1, 12),
)
def test_with_full_effort_nothing_is_missed(kind, seed, steps, share, k):
    random = np.random.default_rng(seed)
    memory = Memory()
    index, held = ApproximateIndex(memory, kind), VectorIndex(WIDTH)
    next_id = 1
    for step, amount in steps:
        if step == "add":
            ids = np.arange(next_id, next_id + amount)
            rows = random_points(random, amount).astype(np.float32)
            next_id += amount
            memory.rows |= dict(zip(ids.tolist(), rows, strict=True))
            held.add(ids, rows)
            while (news := next(memory.vectors_after(index.last_id), None)) is not None:
                index.add(*news)
        else:
            gone = np.flatnonzero(random.random(next_id) < amount)
            for id_ in gone.tolist():
                memory.rows.pop(id_, None)
            held.remove(gone)
            index.remove(gone)
        assert len(index) == len(held)
        np.testing.assert_array_equal(index.ids, held.ids)
    queries = random_points(random, 18).astype(np.float32)
    allowed = None if share is None else np.flatnonzero(random.random(next_id) < share)
    assert index.search(queries, k, allowed) == held.search(queries, k, allowed)
