from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import EvaluationError
from finegrain.evaluation.decisions import (
    at_threshold,
    brier_score,
    fnir_at_fpir,
    ndcg_at_k,
    reliability,
)

SHARES = st.floats(0, 1)
LEVELS = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


@settings(max_examples=60, deadline=None)
@given(
    present=st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=20),
    absent=st.lists(LEVELS, min_size=1, max_size=20),
    fpir=st.sampled_from([0, 0.01, 0.1, 0.25, 0.5, 1.0]),
)
def test_fnir_is_the_least_of_all_thresholds_that_respect_the_fpir(present, absent, fpir):
    scores, flags = [s for s, _ in present], [f for _, f in present]
    rates = []
    for threshold in [-1, *absent, *scores]:
        share = sum(score > threshold for score in absent) / len(absent)
        if share <= fpir + 1e-12:
            misses = sum(not (s > threshold and f) for s, f in present)
            rates.append(misses / len(present))
    assert fnir_at_fpir(scores, flags, absent, fpir) == pytest.approx(min(rates))


@settings(max_examples=40, deadline=None)
@given(
    grades=st.lists(st.sampled_from([0, 0.25, 0.5, 1.0]), min_size=1, max_size=12),
    k=st.integers(1, 15),
)
def test_ndcg_equals_the_sum_of_its_definition(grades, k):
    def gain(ranked):
        return sum(g / math.log2(rank + 1) for rank, g in enumerate(ranked[:k], start=1))

    best = gain(sorted(grades, reverse=True))
    expected = gain(grades) / best if best else 1.0
    assert ndcg_at_k(grades, grades, k) == pytest.approx(expected)
    assert ndcg_at_k(sorted(grades, reverse=True), grades, k) == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(
    predictions=st.lists(st.tuples(SHARES, st.booleans()), min_size=1, max_size=40),
    bins=st.integers(1, 12),
)
def test_bins_have_equal_mass_and_hold_every_prediction(predictions, bins):
    p, right = [p for p, _ in predictions], [r for _, r in predictions]
    if bins > len(p):
        with pytest.raises(EvaluationError, match="bins"):
            reliability(p, right, bins)
        return
    parts = reliability(p, right, bins)
    assert [part.num for part in parts] == [len(a) for a in np.array_split(p, bins)]
    assert sum(part.num * part.right for part in parts) == pytest.approx(sum(right))
    assert sum(part.num * part.probability for part in parts) == pytest.approx(sum(p))
    assert [part.probability for part in parts] == sorted(part.probability for part in parts)
    expected = sum((a - b) ** 2 for a, b in predictions) / len(predictions)
    assert brier_score(p, right) == pytest.approx(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: brier_score([0.5], [True, False]),
        lambda: brier_score([], []),
        lambda: brier_score([1.5], [True]),
        lambda: brier_score([float("nan")], [True]),
        lambda: reliability([0.5], [True], bins=0),
        lambda: fnir_at_fpir([], [], [0.5], 0.1),
        lambda: fnir_at_fpir([0.5], [True], [], 0.1),
        lambda: fnir_at_fpir([0.5], [True, False], [0.5], 0.1),
        lambda: fnir_at_fpir([0.5], [True], [0.5], 1.5),
        lambda: ndcg_at_k([1], [1], 0),
        lambda: ndcg_at_k([-1], [1], 1),
        lambda: ndcg_at_k([1], [float("inf")], 1),
    ],
)
def test_invalid_inputs_are_refused(call):
    with pytest.raises(EvaluationError, match="expected"):
        call()


# --- thresholds -------------------------------------------------------------------------


def test_precision_recall_and_f1_equal_their_definitions():
    random = np.random.default_rng(1)
    scores, right, present = random.random(200), random.random(200) < 0.4, random.random(200) < 0.7
    right &= present
    at = at_threshold(scores, right, present, 0.6)
    shown = [n for n in range(200) if scores[n] >= 0.6]
    hits = sum(bool(right[n]) for n in shown)
    precision, recall = hits / len(shown), hits / sum(present)
    assert at == pytest.approx((0.6, precision, recall, 2 / (1 / precision + 1 / recall)))


def test_nothing_above_the_threshold_is_precise_and_recalls_nothing():
    assert at_threshold([0.1, 0.2], [True, False], [True, False], 0.5) == (0.5, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "right", "present"),
    [([0.1], [True, False], [True, True]), ([0.1], [False], [False]), ([], [], [])],
)
def test_invalid_flags_are_refused(scores, right, present):
    with pytest.raises(EvaluationError, match="a score and two flags"):
        at_threshold(scores, right, present, 0.5)
