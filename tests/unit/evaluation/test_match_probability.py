from __future__ import annotations

import math

import numpy as np
import pytest

from finegrain.errors import EvaluationError
from finegrain.evaluation.decisions import brier_score, reliability
from finegrain.evaluation.match_probability import Level, MatchProbability, fit, trials

NUM_QUERIES, NUM_PICTURES = 200, 300


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of queries with levels of their own, and with two right pictures that score higher."""
    random = np.random.default_rng(seed)
    right = np.zeros((NUM_QUERIES, NUM_PICTURES), bool)
    for row in right:
        row[random.choice(NUM_PICTURES, 2, replace=False)] = True
    scores = random.normal(0.3, 0.1, (NUM_QUERIES, NUM_PICTURES)) + 0.25 * right
    return scores + random.normal(0, 0.02, (NUM_QUERIES, 1)), right


@pytest.fixture(scope="module")
def fitted() -> MatchProbability:
    return fit(*drawn(0))


def first_matches(model: MatchProbability, size: int, seed: int) -> tuple[list[float], list[bool]]:
    """The probability of the best picture of each query of other data, and whether it is right."""
    probabilities, flags = [], []
    for trial in trials(*drawn(seed), size, np.random.default_rng(seed)):
        best = int(trial.scores.argmax())
        level = Level.of(trial.scores, size)
        shown = trial.scores[[best]]
        probabilities += model.of(shown, float(shown[0]), level).tolist()
        flags.append(bool(trial.right[best]))
    return probabilities, flags


def test_the_formula():
    model = MatchProbability(intercept=-3, score=4, z=0.5, log_size=-0.25, below_best=2)
    scores = np.array([0.9, 0.4])
    level = Level(mean=0.2, spread=0.1, size=1000)
    for score, probability in zip(scores, model.of(scores, 0.9, level), strict=True):
        z = (score - 0.2) / 0.1
        logit = -3 + 4 * score + 0.5 * z - 0.25 * math.log(1000) + 2 * (0.9 - score)
        assert probability == pytest.approx(1 / (1 + math.exp(-logit)))
    assert MatchProbability.from_dict(model.to_dict()) == model


@pytest.mark.parametrize("size", [50, 150, 280])
def test_probabilities_agree_with_shares_at_each_size(fitted, size):
    probabilities, flags = first_matches(fitted, size, seed=1)
    assert np.mean(probabilities) == pytest.approx(np.mean(flags), abs=0.1)
    base = np.mean(flags) * (1 - np.mean(flags))
    assert brier_score(probabilities, flags) < 0.9 * base
    shares = [part.right for part in reliability(probabilities, flags, bins=4)]
    assert shares[0] < shares[-1]


def test_a_larger_gallery_lowers_the_probability_of_a_score(fitted):
    score = np.array([0.6])
    chances = [float(fitted.of(score, 0.6, Level(0.3, 0.1, n))[0]) for n in (100, 1000, 10_000)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 2 * chances[2]


def test_a_higher_score_has_a_higher_probability(fitted):
    chances = fitted.of(np.array([0.5, 0.6, 0.7]), 0.7, Level(0.3, 0.1, 300))
    assert chances.tolist() == sorted(chances.tolist())


def test_the_fit_is_the_maximum_of_the_likelihood():
    """Newton's result compared with small steps in every direction."""
    from finegrain.evaluation import match_probability

    random = np.random.default_rng(2)
    inputs = random.normal(0, [1, 5, 0.1, 2], (400, 4))
    targets = (random.random(400) < 1 / (1 + np.exp(-inputs[:, 0] + 3 * inputs[:, 2]))).astype(
        float
    )
    intercept, weights = match_probability._logistic(inputs, targets)

    def loss(change: np.ndarray) -> float:
        slopes = weights + change[1:] / inputs.std(axis=0)
        p = 1 / (1 + np.exp(-(intercept + change[0] + inputs @ slopes)))
        likelihood = np.sum(targets * np.log(p) + (1 - targets) * np.log(1 - p))
        return -likelihood + 0.5 * 1e-3 * 400 * np.sum((slopes * inputs.std(axis=0)) ** 2)

    here = loss(np.zeros(5))
    for number in range(5):
        step = np.zeros(5)
        step[number] = 0.05
        # the intercept has a penalty of its own in no formula, so it is moved at fixed slopes
        assert loss(step) > here
        assert loss(-step) > here


def test_a_seed_gives_the_same_fit():
    assert fit(*drawn(0), seed=3) == fit(*drawn(0), seed=3) != fit(*drawn(0), seed=4)


def test_half_of_the_trials_lose_all_right_pictures():
    scores, right = drawn(0)
    made = list(trials(scores, right, 100, np.random.default_rng(0)))
    assert [len(trial.scores) for trial in made] == [100] * NUM_QUERIES
    kept = [int(trial.right.sum()) for trial in made]
    assert sorted(kept) == [0] * (NUM_QUERIES // 2) + [2] * (NUM_QUERIES // 2)


@pytest.mark.parametrize(
    ("queries", "pictures", "right", "message"),
    [
        (29, 300, True, "got 29 and 300"),
        (200, 39, True, "got 200 and 39"),
        (200, 300, False, "got 0 and 300"),
    ],
)
def test_too_few_judgements_are_refused(queries, pictures, right, message):
    scores, flags = drawn(0)
    flags = flags[:queries, :pictures] & right
    flags[:, 0] |= right
    with pytest.raises(EvaluationError, match=message):
        fit(scores[:queries, :pictures], flags)


def test_matches_that_are_all_wrong_are_refused():
    scores, right = drawn(0)
    with pytest.raises(EvaluationError, match="only wrong ones"):
        fit(scores - 5 * right, right)


def test_equal_scores_have_a_level():
    level = Level.of(np.full(5, 0.3), 5)
    model = MatchProbability(intercept=0, score=1, z=1, log_size=0, below_best=0)
    assert 0 <= model.of(np.array([0.3]), 0.3, level)[0] <= 1
