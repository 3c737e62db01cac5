"""Approximate indexes: exactness, filters, and when they are trained again."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import pytest

from finegrain import times
from finegrain.errors import GalleryError, QueryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.followed_store import Follower
from finegrain.gallery.sqlite.store import Store
from finegrain.index.approximate import ApproximateIndex, Hnsw, Ivf, RaBitQ, kinds, tune
from finegrain.index.approximate import index as approximate_index
from finegrain.index.approximate.trained import Trained
from finegrain.index.exact import VectorIndex

DIM = 24
KINDS = (RaBitQ(candidates=4), Ivf(share=0.2), Hnsw(ef=32))
OPEN_KINDS = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


class Memory:
    """Vectors in memory, with the interface of a gallery's storage."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.dim = vectors.shape[1]
        self.rows = dict(enumerate(vectors, start=1))
        self.fetched: list[int] = []

    def ids(self) -> np.ndarray:
        return np.array(sorted(self.rows), np.int64)

    def vectors(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        results = {id_: self.rows[id_] for id_ in ids if id_ in self.rows}
        self.fetched.append(len(results))
        return results

    def vectors_after(self, last_id: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        ids = self.ids()[self.ids() > last_id]
        for start in range(0, len(ids), 100):
            chunk = ids[start : start + 100]
            yield chunk, np.stack([self.rows[id_] for id_ in chunk.tolist()])


def unit(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def follow(index: ApproximateIndex) -> ApproximateIndex:
    while (news := next(index.truth.vectors_after(index.last_id), None)) is not None:
        index.add(*news)
    return index


def forget(index: ApproximateIndex, ids: np.ndarray) -> None:
    for id_ in ids.tolist():
        index.truth.rows.pop(id_, None)
    index.remove(ids)


def over(vectors: np.ndarray, kind) -> ApproximateIndex:
    return follow(ApproximateIndex(Memory(vectors), kind))


def exact(truth: Memory) -> VectorIndex:
    results = VectorIndex(truth.dim)
    results.add(truth.ids(), np.stack([truth.rows[id_] for id_ in truth.ids().tolist()]))
    return results


def score_of(index: ApproximateIndex, query: np.ndarray, id_: int) -> float:
    return float(np.float32(index.truth.rows[id_].astype(np.float64) @ query.astype(np.float64)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate_index, "TAIL_ROWS", 500)
    monkeypatch.setattr(kinds, "GATHER_ROWS", 20)
    monkeypatch.setattr(Hnsw, "_STEP", 0)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows with which the index was trained."""
    rows: list[int] = []
    over_all = Trained.over.__func__

    def counting(cls, truth, kind):
        rows.append(len(truth.ids()))
        return over_all(cls, truth, kind)

    monkeypatch.setattr(Trained, "over", classmethod(counting))
    return rows


# --- hits -------------------------------------------------------------------------------


@OPEN_KINDS
def test_scores_and_their_order_are_exact(kind):
    index = over(unit(2000), kind)
    assert not index.is_exact
    for query, hits in zip(unit(20, seed=1), index.search(unit(20, seed=1), 10), strict=True):
        assert len({hit.id for hit in hits}) == 10
        assert [hit.score for hit in hits] == [score_of(index, query, hit.id) for hit in hits]
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))


@OPEN_KINDS
def test_the_best_match_of_a_picture_is_itself(kind):
    index = over(unit(2000), kind)
    results = [hits[0].id for hits in index.search(unit(2000)[::100], 1)]
    assert results == list(range(1, 2001, 100))


@pytest.mark.parametrize("kind", [RaBitQ(), Ivf(), Hnsw()], ids=str)
def test_the_default_effort_has_a_high_recall(kind):
    index = over(unit(2000), kind)
    assert literal_recall(index, unit(100, seed=1), 10) > 0.93


def test_components_select_candidates_and_full_vectors_score_them():
    # Most of the variance is in six directions, so that six components select well.
    drawn = unit(2000) * np.where(np.arange(DIM) % 4 == 2, 1.0, 0.05).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    index = over(vectors, RaBitQ(dim=6, bits=1, candidates=30))
    queries = vectors[::100]
    for query, hits in zip(queries, index.search(queries, 10), strict=True):
        assert [hit.score for hit in hits] == [score_of(index, query, hit.id) for hit in hits]
    assert literal_recall(index, queries, 10) > 0.9
    assert literal_recall(over(unit(2000), index.kind), unit(20, seed=1), 10) < 0.9
    assert [kind.candidates for kind in index.kind.ladder()][-1] == 1024
    assert {(kind.dim, kind.bits) for kind in index.kind.ladder()} == {(6, 1)}


def test_few_allowed_rows_are_read_without_following_links(monkeypatch):
    monkeypatch.setattr(Hnsw, "_STEP", 4)
    index = over(unit(2000), Hnsw(ef=32))

    def followed(*args):
        raise AssertionError("searched by its links")

    few, many = np.arange(1, 2001, 10), np.arange(1, 2001, 2)
    want = exact(index.truth).search(unit(3, seed=1), 10, few)
    monkeypatch.setattr(Trained, "candidates", followed)
    assert index.search(unit(3, seed=1), 10, few) == want
    with pytest.raises(AssertionError, match="by its links"):
        index.search(unit(3, seed=1), 10, many)


@OPEN_KINDS
def test_a_small_gallery_is_searched_exactly(kind):
    index = over(unit(450), kind)
    assert index.is_exact
    assert index.search(unit(9, seed=1), 30) == exact(index.truth).search(unit(9, seed=1), 30)


@OPEN_KINDS
@pytest.mark.parametrize("width", [1, 3, 20, 70])
def test_any_width_is_indexed(kind, width: int):
    index = over(unit(700, dim=width), kind)
    (hits,) = index.search(unit(1, seed=3, dim=width), 700)
    assert [hit.id for hit in hits] == [
        hit.id for hit in exact(index.truth).search(unit(1, seed=3, dim=width), 700)[0]
    ]


@OPEN_KINDS
@pytest.mark.parametrize("vectors", [np.zeros((700, DIM)), np.tile(unit(1), (700, 1))])
def test_equal_vectors_are_all_returned(kind, vectors: np.ndarray):
    index = over(vectors.astype(np.float32), kind)
    (hits,) = index.search(unit(1), 10)
    assert len(hits) == 10
    assert {hit.score for hit in hits} == {score_of(index, unit(1)[0], 1)}


@OPEN_KINDS
def test_the_number_of_hits_is_k(kind):
    index = over(unit(2000), kind)
    forget(index, np.arange(1, 900))
    for allowed in (None, np.arange(700, 1500)):
        rows = 1101 if allowed is None else 600
        for k in (1, 500, 600, 5000):
            (hits,) = index.search(unit(1, seed=5), k, allowed)
            assert len({hit.id for hit in hits}) == min(k, rows)


@OPEN_KINDS
def test_a_deep_search_is_exact(kind, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(approximate_index, "DEEPEST", 50)
    index = over(unit(1200), kind)
    queries = unit(3, seed=6)
    allowed = np.arange(300, 900)
    truth = exact(index.truth)
    assert index.search(queries, 51) == truth.search(queries, 51)
    assert index.search(queries, 51, allowed) == truth.search(queries, 51, allowed)


# --- filters ----------------------------------------------------------------------------


@OPEN_KINDS
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_filter_is_applied(kind, share: float):
    index = over(unit(2300), kind)
    allowed = np.flatnonzero(np.random.default_rng(2).random(2400) < share)
    for hits in index.search(unit(8, seed=1), 10, allowed):
        assert len(hits) == 10
        assert {hit.id for hit in hits} <= set(allowed.tolist())


@OPEN_KINDS
def test_a_filter_for_distant_rows_is_applied(kind):
    vectors = unit(2000)
    far = np.argsort(vectors @ unit(1, seed=1)[0])[:100] + 1
    index = over(vectors, kind)
    (hits,) = index.search(unit(1, seed=1), 10, np.sort(far))
    assert len(hits) == 10
    assert {hit.id for hit in hits} <= set(far.tolist())


@OPEN_KINDS
def test_all_rows_of_a_selective_filter_are_read(kind):
    index = over(unit(2000), kind)
    allowed = np.array([3, 600, 601, 1999, 2001, 99_999])
    index.truth.fetched.clear()
    assert index.search(unit(4), 9, allowed) == exact(index.truth).search(unit(4), 9, allowed)
    assert index.truth.fetched == [4]


def test_only_candidates_are_read():
    index = over(unit(2000), RaBitQ(candidates=4))
    index.truth.fetched.clear()
    index.search(unit(2, seed=1), 10)
    assert index.truth.fetched == [40, 40]


def test_codes_are_read_by_all_threads():
    index = over(unit(2000), Ivf())
    index.truth.rows |= dict(enumerate(unit(600, seed=1), start=2001))
    codes = faiss.extract_index_ivf(follow(index)._parts[0].index)
    assert codes.ntotal == 2500
    assert codes.parallel_mode == 1


# --- added and removed rows -------------------------------------------------------------


@OPEN_KINDS
def test_new_rows_are_searched_at_once(kind, learned: list[int]):
    index = over(unit(1000), kind)
    new = unit(1200, seed=7)
    for start in range(0, len(new), 60):
        some = new[start : start + 60]
        index.truth.rows |= dict(enumerate(some, start=1001 + start))
        follow(index)
        results = [hits[0].id for hits in index.search(some[::20], 1)]
        assert results == list(range(1001 + start, 1061 + start, 20))
    assert len(index) == 2200
    assert learned == [1000]
    np.testing.assert_array_equal(index.ids, np.arange(1, 2201))


def test_a_grown_index_is_trained_again(learned: list[int]):
    index = over(unit(600), Ivf())
    index.truth.rows |= dict(enumerate(unit(2600, seed=8), start=601))
    follow(index)
    assert learned == [600, 3200]
    assert len(index) == 3200
    assert index.search(unit(2600, seed=8)[2500:2501], 1)[0][0].id == 3101


def test_rows_read_ahead_are_not_added_twice(learned: list[int]):
    index = over(unit(2000), Hnsw())
    assert learned == [2000]
    np.testing.assert_array_equal(index.ids, np.arange(1, 2001))
    (hits,) = index.search(unit(1), 1500)
    assert len({hit.id for hit in hits}) == len(hits) == 1500


@OPEN_KINDS
def test_removed_rows_are_never_returned(kind, learned: list[int]):
    index = over(unit(2000), kind)
    gone = np.arange(1, 2001, 3)
    forget(index, np.append(gone, 77_777))
    assert len(index) == 2000 - len(gone)
    for hits in index.search(unit(2000)[::30], 10):
        assert len(hits) == 10
        assert not {hit.id for hit in hits} & set(gone.tolist())
    allowed = np.arange(1, 1000)
    for hits in index.search(unit(9), 10, allowed):
        assert {hit.id for hit in hits} <= set(allowed.tolist()) - set(gone.tolist())
    assert learned == [2000]


@OPEN_KINDS
def test_an_index_that_lost_most_rows_is_trained_again_or_exact(kind, learned: list[int]):
    index = over(unit(2000), kind)
    for last in (1200, 1700):
        forget(index, np.arange(1, last + 1))
    assert learned == [2000, 800]
    assert index.is_exact
    np.testing.assert_array_equal(index.ids, np.arange(1701, 2001))
    forget(index, np.arange(1, 2001))
    assert len(index) == index.last_id == 0
    assert index.search(unit(2), 3) == [[], []]


def test_a_row_that_was_deleted_meanwhile_is_left_out():
    index = over(unit(2000), RaBitQ())
    best = index.search(unit(1, seed=1), 2)[0]
    del index.truth.rows[best[0].id]
    assert index.search(unit(1, seed=1), 1)[0] == best[1:]


@OPEN_KINDS
def test_searches_run_during_changes(kind):
    index = over(unit(1500), kind)
    queries = unit(1500)[:500:100]
    stop = threading.Event()

    def search() -> int:
        searches = 0
        while not stop.is_set() or not searches:
            assert [hits[0].id for hits in index.search(queries, 1)] == list(range(1, 501, 100))
            searches += 1
        return searches

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(search) for _ in range(2)]
        try:
            for start in range(1501, 2701, 100):
                index.truth.rows |= dict(enumerate(unit(100, seed=start), start=start))
                follow(index)
                forget(index, np.arange(start - 900, start - 850))
        finally:
            stop.set()
        assert all(future.result() for future in running)


def test_a_search_does_not_change_openmp_threads_of_the_caller():
    before = faiss.omp_get_max_threads()
    over(unit(1024), Ivf()).search(unit(1), 3)
    assert faiss.omp_get_max_threads() == before


# --- together with a gallery's file -----------------------------------------------------


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        yield opened


@pytest.fixture
def store(gallery: Gallery):
    opened = Store(gallery.path, fingerprint=None, dim=DIM, create=False)
    yield opened
    opened.close()


@OPEN_KINDS
def test_the_index_follows_changes_of_the_file(gallery: Gallery, store: Store, kind):
    follower = Follower(store, kind)
    ids = gallery.add(unit(900), [None] * 900)
    queries = unit(900)[:600:100]
    assert [hits[0].id for hits in follower.index().search(queries, 1)] == ids[:600:100]
    assert not follower.index().is_exact
    gallery.delete(ids[:300])
    (newest,) = gallery.add(queries[:1], [None])
    results = [hits[0].id for hits in follower.index().search(queries, 1)]
    assert results[0] == newest
    assert results[3:] == ids[300:600:100]
    np.testing.assert_array_equal(follower.index().ids, list(gallery))


def test_expired_rows_are_not_returned(
    gallery: Gallery, store: Store, monkeypatch: pytest.MonkeyPatch
):
    gallery.add(unit(800), [None] * 800)
    brief = gallery.add(unit(40, seed=1), [None] * 40, expire_after=60)
    follower = Follower(store, Ivf())
    assert follower.index().search(unit(40, seed=1)[:1], 1)[0][0].id == brief[0]
    later = datetime.now(UTC) + timedelta(seconds=61)
    monkeypatch.setattr(times, "now", lambda: later)
    hits = follower.index().search(unit(40, seed=1), 10)
    assert not {hit.id for row in hits for hit in row} & set(brief)
    assert len(follower.index()) == 800


# --- tuning -----------------------------------------------------------------------------


def literal_recall(index: ApproximateIndex, queries: np.ndarray, k: int) -> float:
    vectors = np.stack(list(index.truth.rows.values())).astype(np.float64)
    results = 0
    for query, hits in zip(queries, index.search(queries, k), strict=True):
        best = np.argsort(-(vectors @ query))[:k] + 1
        results += len({hit.id for hit in hits} & set(best.tolist()))
    return results / (k * len(queries))


@OPEN_KINDS
def test_tuning_selects_the_first_sufficient_effort(kind):
    index = over(unit(3000), kind)
    queries = unit(60, seed=1)
    tuned = tune(index, queries, k=10, min_recall=0.9)
    assert tuned.reached
    assert tuned.chosen == tuned.measured[-1]
    assert all(one.recall < 0.9 for one in tuned.measured[:-1])
    assert [one.kind for one in tuned.measured] == kind.ladder()[: len(tuned.measured)]
    assert index.kind == tuned.chosen.kind
    assert literal_recall(index, queries, 10) == pytest.approx(tuned.chosen.recall)
    assert tuned.chosen.worst <= tuned.chosen.recall
    assert tuned.chosen.milliseconds > 0


def test_tuning_prints_a_table():
    text = str(tune(over(unit(3000), Ivf()), unit(60, seed=1), k=5, min_recall=0.99))
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "effort"
    assert "recall@5" in lines[0]
    assert lines[2].startswith("Ivf(share=0.01, candidates=32)")
    assert "60 queries, 3000 pictures. Ivf(share=" in text
    assert "Exact search is about as quick for so few pictures" in text
    assert "give 100 or more" in text


def test_tuning_reports_if_no_effort_is_sufficient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RaBitQ, "_LADDER", (1, 2))
    index = over(unit(3000), RaBitQ(candidates=1, bits=1))
    tuned = tune(index, unit(60, seed=1), k=10, min_recall=1)
    assert not tuned.reached
    assert index.kind == tuned.chosen.kind == RaBitQ(candidates=2, bits=1)
    assert len(tuned.measured) == 2
    assert "No effort reaches 1.0" in str(tuned)


def test_tuning_a_small_gallery_keeps_the_effort():
    index = over(unit(300), Hnsw(ef=100))
    tuned = tune(index, unit(5), k=10, min_recall=0.99)
    assert [one.recall for one in tuned.measured] == [1.0]
    assert index.kind == Hnsw(ef=100)


def test_tuning_measures_recall_of_existing_rows():
    tuned = tune(over(unit(3), Hnsw()), unit(2), k=10, min_recall=1)
    assert tuned.chosen.recall == 1.0


def test_an_exact_gallery_has_nothing_to_tune():
    with pytest.raises(GalleryError, match=r"searches exactly.*index=RaBitQ"):
        tune(VectorIndex(DIM), unit(2), k=1, min_recall=0.9)


@pytest.mark.parametrize("min_recall", [0, 1.01, -1, float("nan"), "all", True, None])
def test_a_recall_that_cannot_be_reached_is_refused(min_recall):
    with pytest.raises(QueryError, match="min_recall is a number above 0, up to 1"):
        tune(over(unit(3), Ivf()), unit(2), k=1, min_recall=min_recall)


@pytest.mark.parametrize(("rows", "queries"), [(0, 2), (3, 0)])
def test_tuning_needs_queries_and_pictures(rows: int, queries: int):
    with pytest.raises(QueryError, match=f"got {queries} queries for a gallery of {rows}"):
        tune(over(unit(rows), Ivf()), unit(queries), k=1, min_recall=0.9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RaBitQ(candidates=0), "candidates is a whole number from 1 to 1024; got 0"),
        (lambda: RaBitQ(candidates=2.5), "candidates is a whole number.*got 2.5"),
        (lambda: RaBitQ(bits=10), "bits is a whole number from 1 to 9; got 10"),
        (lambda: Ivf(share=0), "share is a number above 0, up to 1; got 0"),
        (lambda: Ivf(share=float("nan")), "share is a number.*got nan"),
        (lambda: Ivf(candidates="8"), "candidates is a whole number.*got '8'"),
        (lambda: Ivf(share=16), "share is a number.*got 16"),
        (lambda: Hnsw(ef=True), "ef is a whole number from 1 to 65536; got True"),
        (lambda: Hnsw(ef="x" * 99), "ef is a whole number.*got 'x{39}\\."),
    ],
)
def test_an_effort_out_of_range_is_refused(make, message: str):
    with pytest.raises(GalleryError, match=message):
        make()


def test_efforts_do_not_change_the_structure_of_the_index():
    assert {kind.bits for kind in RaBitQ(bits=4).ladder()} == {4}
