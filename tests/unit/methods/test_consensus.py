"""Mixtures compared with a literal implementation, and their consensus."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from finegrain import load_recipe
from finegrain.methods.consensus import (
    FINE,
    Consensus,
    MixtureFit,
    consensus,
    is_low,
    low_probability,
)

RECIPES = Path(__file__).parents[3] / "recipes"
DEFAULT = MixtureFit()


def literal_low_probability(x, config):
    """A mixture of two normal distributions, computed by loops from the best of all divisions."""
    n = len(x)

    def distance(part):
        mean = math.fsum(part) / len(part)
        return math.fsum((v - mean) ** 2 for v in part)

    ordered = sorted(x)
    cuts = [i for i in range(1, n) if ordered[i] > ordered[i - 1]]
    cut = min(cuts, key=lambda i: distance(ordered[:i]) + distance(ordered[i:]))
    owned = [(1.0, 0.0) if v <= ordered[cut - 1] else (0.0, 1.0) for v in x]

    def fit(owned):
        parts = []
        for k in (0, 1):
            count = math.fsum(o[k] for o in owned) + 10 * np.finfo(float).eps
            mean = math.fsum(o[k] * v for o, v in zip(owned, x, strict=True)) / count
            variance = (
                math.fsum(o[k] * (v - mean) ** 2 for o, v in zip(owned, x, strict=True)) / count
            )
            parts.append((count / n, mean, variance + config.spread))
        return parts

    def own(parts):
        owned, likelihood = [], 0.0
        for v in x:
            logs = [
                math.log(w) - 0.5 * math.log(2 * math.pi * s) - (v - m) ** 2 / (2 * s)
                for w, m, s in parts
            ]
            top = max(logs)
            total = top + math.log(math.fsum(math.exp(one - top) for one in logs))
            owned.append(tuple(math.exp(one - total) for one in logs))
            likelihood += total / n
        return owned, likelihood

    before = -math.inf
    for _ in range(config.iterations):
        owned, likelihood = own(fit(owned))
        if abs(likelihood - before) < config.tolerance:
            break
        before = likelihood
    parts = fit(owned)
    lower = 0 if parts[0][1] <= parts[1][1] else 1
    return np.array([o[lower] for o in own(parts)[0]])


@settings(deadline=None, max_examples=40)
@given(
    x=arrays.arrays(np.float64, st.integers(2, 25), elements=st.floats(0, 1, width=16)),
    config=st.sampled_from([DEFAULT, FINE]),
)
def test_a_mixture_equals_the_literal_implementation(x, config):
    if x.min() == x.max():
        return
    expected = literal_low_probability(x.tolist(), config)
    np.testing.assert_allclose(low_probability(x, config), expected, atol=1e-6)


def drawn(seed=0):
    """Losses of 800 matching pairs and 200 wrong pairs."""
    draw = np.random.default_rng(seed)
    losses = np.concatenate([draw.normal(0.2, 0.05, 800), draw.normal(0.7, 0.1, 200)])
    return losses, np.arange(1000) < 800


def test_matching_and_wrong_pairs_are_separated():
    losses, right = drawn()
    assert (is_low(losses, DEFAULT) == right).mean() > 0.98
    # The unit of the losses does not matter.
    assert np.array_equal(is_low(70 * losses - 3, DEFAULT), is_low(losses, DEFAULT))


def test_if_all_losses_are_low_one_percent_is_excluded():
    """The distributions are so wide that they differ only in their weights."""
    losses = np.concatenate([np.zeros(900), np.linspace(0.5, 1, 100)])
    wide = MixtureFit(spread=1e3)
    assert (low_probability(losses, wide) > 0.5).all()
    assert np.flatnonzero(~is_low(losses, wide)).tolist() == list(range(990, 1000))


def test_equal_losses_exclude_no_pair():
    assert is_low(np.zeros(7), DEFAULT).all()


def test_views_that_disagree_are_decided_at_random():
    """The views disagree about the first hundred pairs."""
    losses, right = drawn()
    other = losses.copy()
    other[:100] = drawn(1)[0][800:900]
    result = consensus(losses, other, DEFAULT, seed=0)
    assert 25 < result[:100].sum() < 75
    assert np.array_equal(result[100:], is_low(losses, DEFAULT)[100:])
    assert np.array_equal(result, consensus(losses, other, DEFAULT, seed=0))
    assert not np.array_equal(result, consensus(losses, other, DEFAULT, seed=1))
    assert (result[100:] == right[100:]).mean() > 0.98


@pytest.mark.parametrize(("noise", "fine"), [(0.0, False), (0.4, False), (0.41, True), (0.8, True)])
def test_the_released_rule_fits_more_precisely_above_40_percent(noise, fine):
    fit = Consensus().fit(noise)
    expected = (100, 1e-4, 1e-6) if fine else (10, 1e-2, 5e-4)
    assert (fit.iterations, fit.tolerance, fit.spread) == expected


def test_a_recipe_can_set_the_precision_of_the_fit():
    config = Consensus(iterations=3, noisy_above=0.1, when_noisy=MixtureFit(iterations=7))
    assert config.fit(0.1).iterations == 3
    assert config.fit(0.2).iterations == 7


def test_a_run_from_before_the_rule_opens():
    """The recipe of such a run has four fields."""
    stated = {"start": 1, "iterations": 20, "tolerance": 0.1, "spread": 0.01}
    recipe = load_recipe(RECIPES / "rde_cuhk_pedes.py", [f"method.consensus={json.dumps(stated)}"])
    assert recipe.method.consensus == Consensus(**stated)
