"""The probability that a picture is right, from its score and those of other pictures.

A cosine alone says little: its level differs by query, and among more pictures a wrong one reaches
a higher score. The probability is the sigmoid of::

    intercept + a * score + b * z + c * log(N) + d * (best score - score)

where ``z`` is the score minus the mean of the query's scores over a sample of the gallery, divided
by their standard deviation, and ``N`` is the size of the gallery. The coefficients are fitted by
logistic regression on queries whose right pictures are known. For half of the queries, every right
picture is removed from the gallery, so that "nobody" is as frequent as a match; and the gallery is
cut to several sizes, which shows the effect of ``N``.

A generalised Pareto tail of the scores was tried as well, with expected false matches
``N * tail(score)`` as a feature. It did not lower the Brier score, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import EvaluationError
from finegrain.rerank import probability_of

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

MIN_QUERIES = 30
"""Fewest queries with a right picture for a fit of five numbers."""

LEAST_SIZE = 20
"""Size of the smallest gallery that is cut out of the given one."""

_SHOWN = 3  # matches of each query that are examples
_NO_SPREAD = 1e-9
_PENALTY = 1e-3
_ROUNDS = 50


class Level(NamedTuple):
    """The scores that a query has with pictures in general.

    Attributes:
        mean, spread: Mean and standard deviation over a sample of the gallery.
        size: Number of pictures in the gallery.
    """

    mean: float
    spread: float
    size: int

    @classmethod
    def of(cls, scores: NDArray[np.floating], size: int) -> Self:
        """The level from the scores of a sample, ``[S]``."""
        mean, spread = float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64))
        return cls(mean, max(spread, _NO_SPREAD), size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchProbability:
    """Coefficients of the probability; the names are those of a plan's manifest."""

    intercept: float
    score: float
    z: float
    log_size: float
    below_best: float

    def of(self, scores: Scores, best: float, level: Level) -> Scores:
        """Probabilities of pictures, ``[N]``.

        Args:
            scores: Their scores, ``[N]``.
            best: The best score of the query.
            level: The level of the query's scores.
        """
        # a product of matrices would round differently by the number of rows
        terms = _features(scores, best, level) * self._weights
        return probability_of(self.intercept + terms.sum(axis=1))

    @property
    def _weights(self) -> Scores:
        return np.array([self.score, self.z, self.log_size, self.below_best])

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, coefficients: Mapping[str, float]) -> Self:
        return cls(**coefficients)


def fit(scores: Scores, right: Flags, *, seed: int = 0) -> MatchProbability:
    """Fit the coefficients on queries whose right pictures are known.

    Args:
        scores: Scores of ``Q`` queries and ``G`` pictures, ``[Q, G]``.
        right: Which pictures are right, ``[Q, G]``.
        seed: Seed of the choice of queries and pictures. A seed gives the same fit everywhere.

    Raises:
        EvaluationError: There are too few queries or pictures, or the best match is always right or
            always wrong.
    """
    num_answered = int(np.count_nonzero(right.any(axis=1)))
    num_pictures = right.shape[1]
    if num_answered < MIN_QUERIES or num_pictures < 2 * LEAST_SIZE:
        raise EvaluationError(
            f"expected at least {MIN_QUERIES} queries with a right picture and {2 * LEAST_SIZE} "
            f"pictures, got {num_answered} and {num_pictures}. Judge more queries."
        )
    random = np.random.default_rng(seed)
    features, labels = [], []
    for size in _sizes(num_pictures):
        for trial in trials(scores, right, size, random):
            best = np.argsort(-trial.scores, kind="stable")[:_SHOWN]
            shown = trial.scores[best]
            features.append(_features(shown, float(shown[0]), Level.of(trial.scores, size)))
            labels.append(trial.right[best])
    inputs, targets = np.concatenate(features), np.concatenate(labels).astype(np.float64)
    if not 0 < targets.mean() < 1:
        raise EvaluationError(
            f"expected right and wrong matches among the first {_SHOWN} of all queries, got only "
            f"{'right' if targets.all() else 'wrong'} ones. Check the judgements."
        )
    intercept, weights = _logistic(inputs, targets)
    return MatchProbability(
        intercept=intercept,
        **dict(zip(("score", "z", "log_size", "below_best"), weights.tolist(), strict=True)),
    )


def fit_or_none(scores: Scores, right: Flags) -> MatchProbability | None:
    """As :func:`fit`; None if that cannot be fitted."""
    try:
        return fit(scores, right)
    except EvaluationError:
        return None


class Trial(NamedTuple):
    """A query with a gallery that is cut out of a larger one.

    Attributes:
        scores: Scores of the pictures, ``[N]``.
        right: Which of them are right, ``[N]``; none, if they were removed.
    """

    scores: Scores
    right: Flags


def trials(
    scores: Scores,
    right: Flags,
    size: int,
    random: np.random.Generator,
    strangers: Flags | None = None,
) -> Iterator[Trial]:
    """Each query with a gallery of ``size`` pictures. Half of them keep their right pictures.

    ``strangers``, ``[Q, G]``, says which wrong pictures may be in the gallery; by default, all.
    """
    keeps = random.permutation(len(scores)) % 2 == 0
    wrong = ~right if strangers is None else ~right & strangers
    for row, own, other, keep in zip(scores, right, wrong, keeps, strict=True):
        kept = random.permutation(np.flatnonzero(own))[: size // 2] if keep else ()
        others = random.permutation(np.flatnonzero(other))[: size - len(kept)]
        chosen = np.concatenate([np.asarray(kept, np.intp), others])
        yield Trial(row[chosen], own[chosen])


def _sizes(num_pictures: int) -> list[int]:
    """Sizes of galleries: all pictures, half of them, a quarter, and so on."""
    sizes = [num_pictures]
    while sizes[-1] // 2 >= LEAST_SIZE and len(sizes) < 6:
        sizes.append(sizes[-1] // 2)
    return sizes


def _features(scores: Scores, best: float, level: Level) -> Scores:
    """The features of pictures, ``[N, 4]``."""
    z = (scores - level.mean) / level.spread
    return np.stack([scores, z, np.full(len(scores), np.log(level.size)), best - scores], axis=1)


def _logistic(inputs: Scores, targets: Scores) -> tuple[float, Scores]:
    """Logistic regression by Newton's method, with a small penalty on standardised weights."""
    mean, spread = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), _NO_SPREAD)
    rows = np.column_stack([np.ones(len(inputs)), (inputs - mean) / spread])
    penalty = _PENALTY * len(rows) * np.diag([0.0, *np.ones(inputs.shape[1])])
    weights = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        p = probability_of(rows @ weights)
        gradient = rows.T @ (p - targets) + penalty @ weights
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + penalty
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    slopes = weights[1:] / spread
    return float(weights[0] - slopes @ mean), slopes
