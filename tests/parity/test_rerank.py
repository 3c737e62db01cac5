"""Re-ranking that stops early compared with scoring every candidate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.records import Matched
from finegrain.rerank import rerank, rerank_by_match


def literal(cosines: np.ndarray, logits: np.ndarray, k: int, weight: float) -> list[int]:
    scores = [
        float(c) + weight * (0.5 * (1 + np.tanh(0.5 * float(logit))))
        for c, logit in zip(cosines, logits, strict=True)
    ]
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]


@given(
    count=st.integers(1, 40),
    k=st.integers(1, 12),
    weight=st.sampled_from([0.0, 0.01, 0.1, 1.0, 10.0]),
    batch=st.integers(1, 9),
    coarse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_first_k_equal_those_of_scoring_all(
    count: int, k: int, weight: float, batch: int, coarse: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cosines = np.sort(rng.normal(0.3, 0.1, count))[::-1]
    logits = rng.normal(0, 6, count)
    if coarse:  # ties
        cosines, logits = np.round(cosines, 1), np.round(logits / 6) * 6
    asked: list[int] = []

    def match(some: slice) -> Matched:
        asked.extend(range(some.start, some.stop))
        return Matched(logits[some], np.full(count, np.nan)[some])

    reranked = rerank(cosines, match, k, weight=weight, batch=batch)
    assert reranked.order[:k].tolist() == literal(cosines, logits, k, weight)
    assert sorted(reranked.order) == list(range(count))
    assert asked == list(range(reranked.num_scored))
    assert np.isnan(reranked.probability[reranked.num_scored :]).all()


@given(count=st.integers(0, 40), batch=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_match_head_alone_orders_by_its_scores(count: int, batch: int, seed: int) -> None:
    """Some scores are equal, and others are so large that their probabilities are equal in floating
    point."""
    rng = np.random.default_rng(seed)
    logits, scores = rng.normal(0, 6, count), 50 * rng.integers(-3, 9, count)
    reranked = rerank_by_match(count, lambda some: Matched(logits[some], scores[some]), batch=batch)
    assert reranked.order.tolist() == sorted(range(count), key=lambda i: (-scores[i], i))
    assert reranked.probability == pytest.approx(1 / (1 + np.exp(-logits)))
    assert reranked.num_scored == count


def test_a_gap_in_the_cosines_ends_the_search() -> None:
    cosines = np.array([0.9, 0.8, 0.3, 0.2, 0.1])
    answers = Matched(np.zeros(1), np.zeros(1))
    reranked = rerank(cosines, lambda some: answers, 2, weight=0.1, batch=1)
    assert reranked.num_scored == 2


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_certain_matches_do_not_overflow(logit: float) -> None:
    answers = Matched(np.array([logit]), np.array([logit]))
    reranked = rerank(np.array([0.5]), lambda some: answers, 1, weight=1.0, batch=8)
    assert reranked.probability[0] == (logit > 0)
