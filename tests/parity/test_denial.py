"""Searches with denied phrases compared with a literal loop over all pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear
from finegrain.search.asking.denial import Denied

DIM = 8
COUNT = 600


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    random = np.random.default_rng(5)
    vectors = unit(random.standard_normal((COUNT, DIM)) + 2 * np.eye(DIM)[0])
    with Gallery(tmp_path_factory.mktemp("denied") / "g", dim=DIM) as opened:
        opened.add(vectors, [None] * COUNT)
        yield opened


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_denied=st.integers(1, 4),
    k=st.sampled_from([1, 10, 300, 900]),
)
def test_a_picture_loses_what_each_phrase_adds_beyond_its_mean(gallery, seed, num_denied, k):
    rows = gallery.vectors(gallery)
    wanted, *phrases = unit(np.random.default_rng(seed).standard_normal((1 + num_denied, DIM)))
    exact = {id_: row.astype(float) for id_, row in rows.items()}
    scores = {id_: float(wanted.astype(float) @ row) for id_, row in exact.items()}
    for phrase in phrases:
        products = {id_: float(phrase.astype(float) @ row) for id_, row in exact.items()}
        mean = sum(products.values()) / len(products)
        for id_, product in products.items():
            scores[id_] -= max(0.0, product - mean)
    sample = np.stack(list(rows.values()))
    hits = gallery.search_by(Denied.over(sample, Linear(wanted), np.stack(phrases)), k)
    best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:k]
    assert [hit.id for hit in hits] == best
    assert [hit.score for hit in hits] == pytest.approx([scores[id_] for id_ in best], abs=1e-6)


def test_the_bound_holds_for_every_picture(gallery):
    rows = np.stack(list(gallery.vectors(gallery).values()))
    for seed in range(20):
        wanted, *phrases = unit(np.random.default_rng(seed).standard_normal((3, DIM)))
        scoring = Denied.over(rows, Linear(wanted), np.stack(phrases))
        bound = rows.astype(float) @ scoring.vector + scoring.offset
        assert np.all(scoring.scores(rows) <= bound + 1e-6)
