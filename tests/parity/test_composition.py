"""Composed scores compared with a literal loop over all pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.gallery import Gallery
from finegrain.search.asking.composition import GARMENTS, NEUTRAL, Composer

DIM = 8
COUNT = 150


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class Texts:
    """An encoder of random vectors, near each other as those of texts are."""

    def encode_texts(self, captions) -> np.ndarray:
        random = np.random.default_rng(len(captions))
        return unit(random.standard_normal((len(captions), DIM)) + 2 * np.eye(DIM)[1])


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(Texts())


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    random = np.random.default_rng(5)
    vectors = unit(random.standard_normal((COUNT, DIM)) + 2 * np.eye(DIM)[0])
    with Gallery(tmp_path_factory.mktemp("composed") / "g", dim=DIM) as opened:
        opened.add(vectors, [None] * COUNT)
        yield opened


def literal(rows: dict[int, np.ndarray], picture, words, weight: float) -> dict[int, float]:
    """The formula of the module, with loops."""
    mean = sum(rows.values()) / len(rows)
    phrases = Texts().encode_texts([*NEUTRAL, *GARMENTS]).astype(float)
    neutral = sum(phrases[: len(NEUTRAL)]) / len(NEUTRAL)
    m = -min(float(one @ (g - mean)) for one in rows.values() for g in rows.values())
    n = -min(
        float((p - neutral) @ (g - mean)) for p in phrases[len(NEUTRAL) :] for g in rows.values()
    )
    scores = {}
    for id_, g in rows.items():
        a = 1 + float(picture @ (g - mean)) / m
        b = 1 + float((words - neutral) @ (g - mean)) / n
        is_product = a > 0 and b > 0
        linear = (1 - weight) * a + weight * b
        scores[id_] = a ** (1 - weight) * b**weight if is_product else min(0.0, linear)
    return scores


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    weight=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    k=st.sampled_from([1, 10, 150]),
)
def test_a_composed_search_equals_the_formula(gallery, composer, seed, weight, k):
    stored = gallery.vectors(gallery)
    rows = {id_: vector.astype(float) for id_, vector in stored.items()}
    picture, words = unit(
        3 * np.random.default_rng(seed).standard_normal((2, DIM)) + np.eye(DIM)[1]
    )
    expected = literal(rows, picture.astype(float), words.astype(float), weight)
    sample = np.stack(list(stored.values()))
    hits = gallery.search_by(composer.compose(picture, words, weight, sample), k)
    best = sorted(expected.values())[::-1][:k]
    assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
    assert all(hit.score == pytest.approx(expected[hit.id], abs=1e-5) for hit in hits)


def test_neutral_words_leave_the_order_of_the_picture(gallery, composer):
    stored = gallery.vectors(gallery)
    sample = np.stack(list(stored.values()))
    picture = unit(np.random.default_rng(1).standard_normal(DIM) + 2 * np.eye(DIM)[0])
    neutral = composer._neutral.astype(np.float32)
    hits = gallery.search_by(composer.compose(picture, neutral, 0.6, sample), 60)
    (plain,) = gallery.search(picture[None], 60)
    assert [hit.id for hit in hits] == [hit.id for hit in plain]


def test_a_gallery_of_one_picture_is_composed(composer):
    picture, words = unit(np.random.default_rng(1).standard_normal((2, DIM)))
    scoring = composer.compose(picture, words, 0.6, picture[None])
    assert scoring.scores(picture[None]) == pytest.approx([1.0])
