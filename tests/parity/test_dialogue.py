"""The information of a question, against the entropies of its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finegrain.search.asking.dialogue import information


def entropy(probabilities) -> float:
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def literal_information(belief, likelihood) -> float:
    """``H(p) - sum_v P(v) H(p l_v / P(v))``, one candidate and one answer at a time."""
    gain = entropy(belief)
    for v in range(len(likelihood[0])):
        joint = [p * row[v] for p, row in zip(belief, likelihood, strict=True)]
        if answer := sum(joint):
            gain -= answer * entropy([j / answer for j in joint])
    return gain


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("candidates", "values"), [(1, 2), (7, 3), (200, 12)])
def test_information_is_the_expected_loss_of_entropy(seed: int, candidates: int, values: int):
    rng = np.random.default_rng(seed)
    belief = rng.dirichlet(np.full(candidates, 0.3))
    likelihood = rng.dirichlet(np.full(values, 0.5), size=candidates)
    expected = literal_information(belief.tolist(), likelihood.tolist())
    assert information(belief, likelihood) == pytest.approx(expected, abs=1e-9)


def test_answers_that_are_certain_tell_all_bits():
    assert information(np.full(4, 0.25), np.eye(4)) == pytest.approx(2)
    assert information(np.full(4, 0.25), np.full((4, 3), 1 / 3)) == pytest.approx(0)
    assert information(np.array([1.0, 0.0]), np.eye(2)) == pytest.approx(0)
