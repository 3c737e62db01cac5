"""The index of a gallery: its error bound, its blocks, its threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.index import codes
from finegrain.index.block import Block, HeldVectors, Part
from finegrain.index.codes import Asked, Codes, FiledCodes, coded, encode
from finegrain.index.estimate import Pool, Query, longest_of
from finegrain.index.exact import VectorIndex
from finegrain.index.late_codes import LateCodes

pytestmark = pytest.mark.usefixtures("small_blocks")

DIM = 24


def unit(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def read_in_full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows in parts whose vectors were all read."""
    counts: list[int] = []
    read_all = Part.all

    def counting(part: Part, query: Query):
        counts.append(len(part))
        return read_all(part, query)

    monkeypatch.setattr(Part, "all", counting)
    return counts


def filled(vectors: np.ndarray) -> VectorIndex:
    results = VectorIndex(vectors.shape[1])
    results.add(np.arange(len(vectors)), vectors)
    return results


def codes_of(vectors: np.ndarray) -> Codes:
    return coded(vectors, longest_of(vectors))


def best(vectors: np.ndarray, query: Query, k: int) -> Pool | None:
    return codes_of(vectors).best([Asked(query, k, None)])[0]


# --- error bound ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 70),
    scale=st.sampled_from([1e-30, 1e-3, 1, 1e3, 1e15]),
    spread=st.sampled_from([0, 1e-7, 1e-3, 1]),
    outlier=st.sampled_from([0, 1, 100]),
)
def test_errors_of_estimates_are_within_the_bound(seed, dim, scale, spread, outlier):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal(dim) + spread * random.standard_normal((300, dim))
    vectors[:, random.integers(dim)] += outlier
    vectors = (vectors * random.choice([0, 1e-4, 1], (300, 1), p=[0.1, 0.2, 0.7])).astype(
        np.float32
    )
    query = Query((scale * random.standard_normal(dim)).astype(np.float32).astype(np.float64))
    truth = query.scores(vectors).astype(np.float64) / query.length
    part = Part(Block.of(np.arange(300), vectors))
    every = part.all(query)
    assert sorted(every.rows.tolist()) == list(range(300))
    assert np.abs(every.scores - truth[every.rows]).max() <= every.error
    encoded = encode(vectors, longest_of(vectors))
    filed = FiledCodes(lambda: iter([encoded]), np.arange(len(vectors)))
    late = LateCodes(filed, HeldVectors(vectors))
    for pool in (best(vectors, query, k=2), *late.best([Asked(query, 2, None)])):
        if pool is None:
            continue
        assert np.abs(pool.scores - truth[pool.rows]).max() <= pool.error
        left_out = np.delete(truth, pool.rows)
        assert left_out.max(initial=-np.inf) < max(np.sort(truth)[-2], pool.rest + pool.error)


def test_the_bound_excludes_most_rows():
    query = Query(unit(1, seed=1, dim=512)[0].astype(np.float64))
    pool = best(unit(4096, dim=512), query, k=1)
    assert pool is not None
    assert pool.error < 0.03
    assert len(pool.rows) < 200
    assert Part(Block.of(np.arange(9), unit(9))).all(Query(np.ones(DIM))).error < 1e-5


def test_constant_columns_do_not_add_to_the_error():
    vectors = np.tile(unit(1), (400, 1))
    vectors[:, 0] = np.linspace(0, 1, 400) ** 9
    query = Query(np.eye(DIM)[0])
    pool = best(vectors, query, k=1)
    assert pool is not None
    assert pool.error < 0.01


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), dim=st.integers(1, 130))
def test_equal_rows_have_equal_scores_in_any_position(seed: int, count: int, dim: int):
    random = np.random.default_rng(seed)
    row = random.standard_normal(dim).astype(np.float32)
    vectors = random.standard_normal((count, dim)).astype(np.float32)
    vectors[random.random(count) < 0.5] = row
    query = Query(random.standard_normal(dim))
    same = (vectors == row).all(axis=1)
    assert set(query.scores(vectors)[same]) <= set(query.scores(row[None]))


# --- which vectors are read -------------------------------------------------------------


def test_codes_are_enough_for_most_vectors(read_in_full: list[int]):
    vectors = unit(1536, dim=64)
    assert filled(vectors).search(vectors[700:701], 1)[0][0].id == 700
    assert read_in_full == []


def test_many_hits_are_selected_over_all_blocks(read_in_full: list[int]):
    vectors = unit(4096, dim=64)
    results = filled(vectors)
    scored: list[int] = []
    original = Part.scored
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Part, "scored", lambda *part: scored.append(len(part[2])) or original(*part))
        hits = results.search(vectors[:1], 200)[0]
    assert [hit.id for hit in hits] == np.argsort(-vectors @ vectors[0])[:200].tolist()
    # Each of the eight blocks holds about 25 of the best. FAISS selects in each block alone.
    assert read_in_full == ([] if codes.multiplies_bytes() else [512] * 8)
    assert 200 <= sum(scored) < 1024


def test_vectors_with_nearly_equal_codes_are_read(read_in_full: list[int]):
    vectors = np.tile(unit(1), (600, 1))
    vectors[:512, 0] += np.linspace(0, 1e-6, 512, dtype=np.float32)
    vectors[512:] = -vectors[512:]
    results = filled(vectors).search(unit(1), 3)[0]
    # the block of 512 holds all of them, and the other 88 rows are too few for codes
    assert sorted(read_in_full) == [88, 512]
    best = np.argsort(-np.float32(vectors.astype(np.float64) @ unit(1)[0]), kind="stable")
    assert [hit.id for hit in results] == best[:3].tolist()


def test_only_vectors_of_a_selective_filter_are_read(read_in_full: list[int]):
    gallery = filled(unit(1536))
    hits = gallery.search(unit(1), 9, np.array([3, 600, 601, 99_999]))[0]
    assert {hit.id for hit in hits} == {3, 600, 601}
    assert sorted(read_in_full) == [1, 2]


def test_a_wide_filter_still_scans_codes(read_in_full: list[int]):
    vectors = unit(1536, dim=64)
    hits = filled(vectors).search(vectors[700:701], 1, np.flatnonzero(np.arange(1536) % 4 != 3))[0]
    assert [hit.id for hit in hits] == [700]
    assert read_in_full == []


def test_a_wide_filter_for_distant_rows_is_exact():
    vectors = unit(1536, dim=64)
    far = np.sort(np.argsort(vectors @ vectors[700])[:920])
    (hits,) = filled(vectors).search(vectors[700:701], 1, far)
    assert hits[0].id == far[np.argmax(vectors[far] @ vectors[700])]


# --- added and removed rows -------------------------------------------------------------


def test_adding_few_rows_does_not_copy_large_blocks():
    gallery = filled(unit(2048))
    before = gallery._blocks
    for number in range(100):
        gallery.add(np.array([5000 + number]), unit(1, seed=number))
    assert gallery._blocks[:4] == before
    assert len(gallery._blocks) < 4 + 8
    assert len(gallery) == 2148


def test_rows_added_one_by_one_are_copied_a_few_times(monkeypatch):
    copied = []
    joined = Block.joined
    monkeypatch.setattr(
        Block,
        "joined",
        lambda one, other: copied.append(len(one) + len(other)) or joined(one, other),
    )
    gallery = VectorIndex(DIM)
    for number in range(500):
        gallery.add(np.array([number]), unit(1, seed=number))
    assert sum(copied) < 500 * 12  # a row is copied about once for each doubling


def test_removing_few_rows_does_not_copy_other_blocks():
    gallery = filled(unit(2048))
    before = gallery._blocks
    gallery.remove(np.array([600, 601, 77_777]))
    after = gallery._blocks
    assert [len(part) for part in after] == [512, 510, 512, 512]
    assert [one is other for one, other in zip(before, after, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_blocks_that_lost_most_rows_are_joined():
    gallery = filled(unit(4096))
    gone = np.flatnonzero(np.arange(4096) % 64)
    gallery.remove(gone)
    assert len(gallery) == 64
    assert len(gallery._blocks) <= 2
    gallery.remove(np.arange(4096))
    assert gallery._blocks == ()
    assert gallery.search(unit(2), 3) == [[], []]


def test_arrays_of_the_caller_are_not_changed():
    vectors, ids = unit(600), np.arange(600)
    gallery = VectorIndex(DIM)
    gallery.add(ids, vectors)
    before = gallery.search(unit(1, seed=9), 5)
    vectors[:] = 0
    ids[:] = 0
    assert gallery.search(unit(1, seed=9), 5) == before


# --- threads ----------------------------------------------------------------------------


def test_searches_run_during_changes():
    vectors = unit(1024)
    gallery = filled(vectors)
    queries = vectors[:512:64]
    kept = np.arange(512)
    expected = gallery.search(queries, 3, kept)
    stop = threading.Event()

    def search() -> int:
        searches = 0
        while not stop.is_set() or not searches:
            assert gallery.search(queries, 3, kept) == expected
            assert [hits[0].id for hits in gallery.search(queries, 1)] == list(range(0, 512, 64))
            searches += 1
        return searches

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(search) for _ in range(3)]
        try:
            for start in range(1024, 2048, 64):
                ids = np.arange(start, start + 64)
                gallery.add(ids, unit(64, seed=start))
                gallery.remove(ids - 512)
        finally:
            stop.set()
        assert all(future.result() for future in running)


def test_a_search_does_not_change_openmp_threads_of_the_caller():
    before = faiss.omp_get_max_threads()
    filled(unit(1024)).search(unit(1), 3)
    assert faiss.omp_get_max_threads() == before
