"""Search of a gallery compared with a literal loop, after random additions and deletions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.vector_file import VectorFile, checksums_of
from finegrain.gallery.sqlite.vector_source import VectorSource
from finegrain.index.block import FiledVectors, StoredBlock
from finegrain.index.codes import FiledCodes
from finegrain.index.exact import VectorIndex

DIM = 4

# Few directions whose inner products are exact in float32, so ties are common and exact.
exact = st.lists(st.sampled_from([-0.5, 0.5]), min_size=DIM, max_size=DIM)


def literal_search(rows: dict[int, np.ndarray], query: np.ndarray, k: int):
    scores = []
    for id_, vector in rows.items():
        score = 0.0
        for left, right in zip(query, vector, strict=True):
            score += float(left) * float(right)
        scores.append((-score, id_))
    return [(id_, -score) for score, id_ in sorted(scores)[:k]]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(exact, min_size=1, max_size=12)),
        st.tuples(st.just("delete"), st.lists(st.integers(1, 40), max_size=6)),
        st.tuples(st.just("search"), st.integers(1, 50)),
        st.tuples(st.just("filter"), st.integers(1, 50)),
    ),
    max_size=8,
)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=40, deadline=None)
@given(steps=steps, query=exact, end=st.integers(1, 50))
def test_search_equals_a_literal_loop(steps, query, end: int):
    with tempfile.TemporaryDirectory() as folder, Gallery(Path(folder) / "g", dim=DIM) as gallery:
        rows: dict[int, np.ndarray] = {}
        queries = np.array([query], np.float32)
        for kind, value in [*steps, ("search", end)]:
            if kind == "add":
                added = gallery.add(np.array(value), [None] * len(value))
                rows |= dict(zip(added, np.array(value, np.float32), strict=True))
            elif kind == "delete":
                assert gallery.delete(value) == len(rows.keys() & set(value))
                rows = {id_: vector for id_, vector in rows.items() if id_ not in value}
            else:
                where = "id not in (2, 3, 5, 7, 11, 13)" if kind == "filter" else None
                looked_at = {
                    id_: vector
                    for id_, vector in rows.items()
                    if where is None or id_ not in (2, 3, 5, 7, 11, 13)
                }
                (hits,) = gallery.search(queries, value, where=where)
                result = [(hit.id, hit.score) for hit in hits]
                assert result == literal_search(looked_at, queries[0], value)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 900), k=st.integers(1, 200))
def test_the_lowest_ids_of_equal_scores_are_returned(seed: int, count: int, k: int):
    random = np.random.default_rng(seed)
    vectors = random.choice(np.float32([-0.5, 0.5]), (count, DIM))
    queries = random.choice(np.float32([-0.5, 0.5]), (25, DIM))
    searched = VectorIndex(DIM)
    searched.add(np.arange(count), vectors)
    for allowed in (None, np.flatnonzero(random.random(count) < 0.7)):
        for size in (1, 25):
            columns = np.arange(count) if allowed is None else allowed
            for query, hits in zip(
                queries[:size], searched.search(queries[:size], k, allowed), strict=True
            ):
                scores = vectors[columns] @ query
                best = columns[np.lexsort((columns, -scores))][:k]
                assert [hit.id for hit in hits] == best.tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 200), k=st.integers(1, 20))
def test_scores_equal_float64_inner_products(seed: int, count: int, k: int):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 48)).astype(np.float32)
    queries = random.standard_normal((25, 48)).astype(np.float32)
    searched = VectorIndex(48)
    searched.add(np.arange(1, count + 1), vectors)
    allowed = np.flatnonzero(random.random(count) < 0.5) + 1
    truth = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for ids in (None, allowed):
        columns = np.arange(count) if ids is None else ids - 1
        for row, hits in zip(truth, searched.search(queries, k, ids), strict=True):
            best = np.sort(row[columns])[::-1][:k]
            np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-4)
            np.testing.assert_allclose([row[hit.id - 1] for hit in hits], best, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batches=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    drop=st.floats(0, 1),
)
def test_an_updated_index_equals_a_new_one(seed: int, batches, drop: float):
    random = np.random.default_rng(seed)
    total = sum(batches)
    vectors = random.standard_normal((total, 16)).astype(np.float32)
    kept = VectorIndex(16)
    alive = np.zeros(total, bool)
    start = 0
    for size in batches:
        place = np.arange(start, start + size)
        kept.add(place * 3, vectors[place])
        alive[place] = True
        gone = np.flatnonzero(alive & (random.random(total) < drop))
        kept.remove(gone * 3)
        alive[gone] = False
        start += size
    anew = VectorIndex(16)
    anew.add(np.flatnonzero(alive) * 3, vectors[alive])
    queries = random.standard_normal((3, 16)).astype(np.float32)
    np.testing.assert_array_equal(kept.ids, anew.ids)
    assert kept.search(queries, 10) == anew.search(queries, 10)


def _duplicates(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal((5, WIDTH))[random.integers(5, size=count)]


def _cluster(radius: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    def points(random: np.random.Generator, count: int) -> np.ndarray:
        return random.standard_normal(WIDTH) + radius * random.standard_normal((count, WIDTH))

    return points


def _outlying_column(random: np.random.Generator, count: int) -> np.ndarray:
    points = random.standard_normal((count, WIDTH))
    points[:, 3] += random.choice([0, 200], count, p=[0.99, 0.01])
    return points


WIDTH = 20
POINTS = {
    "random": lambda random, count: random.standard_normal((count, WIDTH)),
    "duplicates": _duplicates,
    "below a byte": _cluster(1e-3),
    "below half precision": _cluster(1e-5),
    "one bit apart": _cluster(1e-7),
    "one point": _cluster(0.0),
    "zeros": lambda random, count: np.zeros((count, WIDTH)),
    "corners": lambda random, count: random.choice([-0.5, 0.5], (count, WIDTH)),
    "outlying column": _outlying_column,
}


def literal_best(
    rows: dict[int, np.ndarray],
    query: np.ndarray,
    k: int,
    allowed: np.ndarray | None,
    biases: np.ndarray,
) -> list[tuple[int, float]]:
    """The highest products of the vectors of rows, plus biases, in extended precision.

    They are rounded to float32 and sorted.
    """
    kept = rows.keys() if allowed is None else set(allowed.tolist())
    ids = np.array([id_ for id_ in rows if id_ in kept], int)
    if not len(ids):
        return []
    vectors = np.stack([rows[id_] for id_ in ids]).astype(np.longdouble)
    vectors = vectors.reshape(len(ids), -1, len(query))
    scores = (vectors * query.astype(np.longdouble)).sum(axis=2).max(axis=1) + biases[ids]
    scores = scores.astype(np.float32)
    ranked = sorted(zip((-scores).tolist(), ids.tolist(), strict=True))
    return [(id_, -score) for score, id_ in ranked[:k]]


class FiledIndex(VectorIndex):
    """Takes full blocks from a file, as a gallery does; others are added from memory."""

    def __init__(self, dim: int, vectors_per_row: int = 1) -> None:
        super().__init__(dim, vectors_per_row=vectors_per_row)
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "vectors"
        self._file = VectorFile.create(
            path, width=dim * vectors_per_row, identity="a" * 32, block_rows=300
        )
        self._source = VectorSource(self._file, on_damage=lambda ids: None)
        self._num_slots = 0

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        self._file.append(self._num_slots, ids + 1, checksums_of(vectors), vectors)
        full = range(self._num_slots // 300, (self._num_slots + len(ids)) // 300)
        self._num_slots += len(ids)
        super().add(ids, vectors)
        self.adopt(full, self._block)

    def remove(self, ids: np.ndarray) -> None:
        super().remove(ids)
        slots = self._file.slots_of(ids + 1, self._num_slots)
        self._file.erase(slots[slots >= 0])

    def _block(self, number: int) -> StoredBlock:
        ids = self._file.ids(number)
        slots = np.arange(len(ids)) + 300 * number
        vectors = FiledVectors(self._source, slots, self._file.checksums(number))
        codes = FiledCodes(partial(self._file.codes, number), np.arange(len(ids)))
        return StoredBlock(abs(ids) - 1, vectors, codes).only(ids > 0)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(sorted(POINTS)), min_size=1, max_size=3),
    count=st.integers(1, 700),
    drop=st.sampled_from([0, 0, 0.01, 0.5, 0.99]),
    share=st.sampled_from([None, 0, 0.003, 0.14, 0.3, 0.9, 1]),
    k=st.one_of(st.integers(1, 12), st.integers(1, 2200)),
    num_queries=st.sampled_from([1, 3, 17]),
    is_filed=st.booleans(),
    scale=st.sampled_from([None, 0.05, 3, 1e5]),
    biased=st.sampled_from([0.01, 1]),
    several=st.sampled_from([1, 1, 2, 3]),
)
def test_search_is_exact_for_any_data(
    seed, kinds, count, drop, share, k, num_queries, is_filed, scale, biased, several
) -> None:
    random = np.random.default_rng(seed)
    biases = np.zeros(6000, np.float32)
    index = FiledIndex if is_filed else VectorIndex
    searched = index(WIDTH, vectors_per_row=several)
    rows: dict[int, np.ndarray] = {}
    for number, kind in enumerate(kinds):
        ids = np.arange(count) * 2 + number * 2000
        places = [POINTS[kind](random, count) for _ in range(several)]
        vectors = np.concatenate(places, axis=1).astype(np.float32)
        searched.add(ids, vectors)
        rows |= dict(zip(ids.tolist(), vectors, strict=True))
        if scale is not None:  # of present rows, and of rows that are added later
            changed = np.flatnonzero(random.random(6000) < biased)
            biases[changed] = scale * random.standard_normal(len(changed))
            searched.set_biases(changed, biases[changed])
        gone = np.flatnonzero(random.random(6000) < drop)
        searched.remove(gone)
        for id_ in gone.tolist():
            rows.pop(id_, None)
    allowed = None if share is None else np.flatnonzero(random.random(6000) < share)
    queries = random.standard_normal((num_queries, WIDTH)).astype(np.float32)
    if rows:
        queries[0] = next(iter(rows.values()))[:WIDTH]
    assert searched.ids.tolist() == list(rows)
    for query, hits in zip(queries, searched.search(queries, k, allowed), strict=True):
        best = literal_best(rows, query, k, allowed, biases)
        assert [(hit.id, hit.score) for hit in hits] == best
    if (late := searched._unpacked()) is not None:
        before = searched.search(queries, k, allowed)
        while late is not None:
            late.pack()
            late = searched._unpacked()
        assert searched.search(queries, k, allowed) == before
