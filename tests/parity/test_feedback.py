"""Scored searches and feedback compared with literal loops over all pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear
from finegrain.search.asking.feedback import LIKE, UNLIKE, judged

DIM = 6
COUNT = 700


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    """Pictures in a cone, as embeddings are; some are equal, and each person has several."""
    random = np.random.default_rng(3)
    vectors = unit(random.standard_normal((COUNT, DIM)) + 2 * np.eye(DIM)[0])
    vectors[1::50] = vectors[::50]
    with Gallery(tmp_path_factory.mktemp("scored") / "g", dim=DIM) as opened:
        opened.add(vectors, [None] * COUNT, pids=[n % 90 for n in range(COUNT)])
        yield opened


@pytest.fixture(scope="module")
def rows(gallery: Gallery) -> dict[int, np.ndarray]:
    return {id_: vector.astype(float) for id_, vector in gallery.vectors(gallery).items()}


class Penalised:
    """A score with a penalty, far below its bound for many pictures."""

    def __init__(self, query: np.ndarray, denied: np.ndarray, offset: float) -> None:
        self.vector, self._denied, self.offset = query, denied, offset

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self.one(row) for row in rows.astype(float)])

    def one(self, row: np.ndarray) -> float:
        penalty = max(0.0, float(row @ self._denied.astype(float)))
        return float(row @ self.vector.astype(float)) - 3 * penalty + self.offset


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 7, 60, 700, 5000]),
    group_by=st.sampled_from([None, "pid"]),
    where=st.sampled_from([None, "pid < 30"]),
    num_without=st.sampled_from([0, 1, 100]),
    offset=st.sampled_from([0, 3]),
)
def test_a_scored_search_equals_scoring_every_picture(
    gallery, rows, seed, k, group_by, where, num_without, offset
):
    random = np.random.default_rng(seed)
    query, denied = unit(random.standard_normal((2, DIM)))
    without = random.choice(list(rows), num_without, replace=False).tolist()
    scoring = Penalised(query, denied, offset=0.25)
    hits = gallery.search_by(scoring, k, where, group_by=group_by, offset=offset, without=without)
    pid = {row.id: row.pid for row in gallery.rows(gallery)}
    expected, groups = [], set()
    for score, id_ in sorted((-scoring.one(row), id_) for id_, row in rows.items()):
        if id_ in without or (where and pid[id_] >= 30) or (group_by and pid[id_] in groups):
            continue
        groups.add(pid[id_])
        expected.append((id_, -score))
    expected = expected[offset : offset + k]
    assert [hit.id for hit in hits] == [id_ for id_, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_like=st.sampled_from([0, 1, 3]),
    num_unlike=st.sampled_from([0, 1, 2]),
)
def test_feedback_equals_the_formula(gallery, rows, seed, num_like, num_unlike):
    """z(t.g) + b z(mean_P . g) - c z(mean_N . g), in the units of t.g, over all pictures."""
    random = np.random.default_rng(seed)
    query = unit(random.standard_normal(DIM))
    chosen = random.choice(list(rows), num_like + num_unlike, replace=False).tolist()
    like, unlike = chosen[:num_like], chosen[num_like:]
    sample = np.stack([rows[id_] for id_ in rows]).astype(np.float32)

    def z(vector: np.ndarray) -> dict[int, float]:
        products = {id_: float(vector @ row) for id_, row in rows.items()}
        mean = sum(products.values()) / len(products)
        variance = sum((p - mean) ** 2 for p in products.values()) / len(products)
        return {id_: (p - mean) / variance**0.5 for id_, p in products.items()}

    words = {id_: float(query.astype(float) @ row) for id_, row in rows.items()}
    spread = np.std(list(words.values()))
    expected = dict(words)
    for ids, weight in ((like, LIKE), (unlike, -UNLIKE)):
        if ids:
            parts = z(sum(rows[id_] for id_ in ids) / len(ids))
            expected = {id_: s + weight * spread * parts[id_] for id_, s in expected.items()}
    scoring = judged(Linear(query), [rows[i] for i in like], [rows[i] for i in unlike], sample)
    hits = gallery.search_by(scoring, 20)
    best = sorted(expected, key=lambda id_: -expected[id_])[:20]
    assert [hit.score for hit in hits] == pytest.approx([expected[i] for i in best], abs=1e-5)
    assert all(hit.score == pytest.approx(expected[hit.id], abs=1e-5) for hit in hits)


def test_feedback_of_a_gallery_of_equal_pictures_adds_nothing():
    sample = np.tile(unit(np.arange(1, DIM + 1.0)), (5, 1))
    query = unit(np.ones(DIM))
    scoring = judged(Linear(query), [sample[0]], [sample[1]], sample)
    assert scoring.scores(sample) == pytest.approx(Linear(query).scores(sample))
