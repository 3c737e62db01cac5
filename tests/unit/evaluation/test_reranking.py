from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.evaluation.reranking import CandidateScores
from finegrain.rerank import MATCHED_AT_ONCE

GALLERY, DEPTH = 90, 70


def stage_of(seed: int, queries: int = 3) -> CandidateScores:
    rng = np.random.default_rng(seed)
    texts, images = (rng.normal(size=(n, 4)).astype(np.float32) for n in (queries, GALLERY))
    pids = rng.integers(0, 20, GALLERY)
    return CandidateScores(
        texts=texts,
        images=images,
        query_pids=pids[:queries],
        gallery_pids=pids,
        candidates=np.stack(
            [np.argsort(-(images @ text), kind="stable")[:DEPTH] for text in texts]
        ),
        logits=rng.normal(0, 6, (queries, DEPTH)).astype(np.float32),
        scores=rng.normal(0, 6, (queries, DEPTH)).astype(np.float32),
    )


def literal_scored(cosines: list[float], probability: list[float], k: int, weight: float) -> int:
    """Score batch after batch until no remaining candidate can be among the first k."""
    for asked in range(MATCHED_AT_ONCE, len(cosines), MATCHED_AT_ONCE):
        scores = [c + weight * p for c, p in zip(cosines[:asked], probability[:asked], strict=True)]
        if asked >= k and sorted(scores)[-k] > cosines[asked] + weight:
            return asked
    return len(cosines)


@given(
    k=st.integers(1, 20),
    depth=st.integers(1, DEPTH),
    weight=st.sampled_from([0.0, 0.1, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_the_match_head_scores_only_pictures_that_can_reach_the_first_k(k, depth, weight, seed):
    stage = stage_of(seed)
    expected = [
        literal_scored(
            (stage.images[places[:depth]] @ text).tolist(), probability[:depth].tolist(), k, weight
        )
        for text, places, probability in zip(
            stage.texts, stage.candidates, stage.probability, strict=True
        )
    ]
    assert stage.num_scored(weight, k, depth=depth).tolist() == expected


def test_the_match_head_alone_scores_all_and_vectors_alone_few():
    stage = stage_of(0)
    assert stage.num_scored(1e6, 10, depth=64).tolist() == [64] * 3
    assert stage.num_scored(0.0, 10, depth=64).tolist() == [MATCHED_AT_ONCE] * 3


def test_a_probability_is_the_sigmoid_of_its_logit():
    stage = stage_of(1)
    expected = 1 / (1 + np.exp(-stage.logits.astype(np.float64)))
    assert stage.probability == pytest.approx(expected)


def test_the_match_head_alone_orders_by_logit():
    """Both probabilities are 1 in floating point, while the logits 40 and 60 differ."""
    stage = CandidateScores(
        texts=np.array([[1.0, 0.0]], np.float32),
        images=np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], np.float32),
        query_pids=np.array([1]),
        gallery_pids=np.array([0, 1, 2]),
        candidates=np.array([[0, 1]]),
        logits=np.array([[40.0, 60.0]], np.float32),
        scores=np.array([[40.0, 60.0]], np.float32),
    )
    assert stage.probability.tolist() == [[1.0, 1.0]]
    assert stage.metrics(1e6).rank1 == 0
    assert stage.match_metrics().rank1 == 100


@given(seed=st.integers(0, 99), depth=st.integers(1, DEPTH))
def test_metrics_of_the_match_head_alone_equal_those_of_a_full_sort(seed, depth):
    stage = stage_of(seed)
    firsts = []
    for text, places, scores, pid in zip(
        stage.texts, stage.candidates, stage.scores, stage.query_pids, strict=True
    ):
        order = [places[i] for i in np.argsort(-scores[:depth], kind="stable")]
        cosines = stage.images @ text
        order += [p for p in np.argsort(-cosines, kind="stable") if p not in places[:depth]]
        firsts.append(stage.gallery_pids[order[0]] == pid)
    assert stage.match_metrics(depth=depth).rank1 == pytest.approx(100 * np.mean(firsts))
