"""Metrics of decisions: may a match be trusted, and is "nobody" recognised?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finegrain.errors import EvaluationError


class ReliabilityBin(NamedTuple):
    """Predictions of similar probability.

    Attributes:
        probability: Mean of the predicted probabilities.
        right: Share that is right.
        num: Number of predictions.
    """

    probability: float
    right: float
    num: int


def reliability(
    probabilities: npt.ArrayLike, right: npt.ArrayLike, bins: int = 10
) -> list[ReliabilityBin]:
    """Compare predicted probabilities with shares of right ones, in bins of equal mass.

    Args:
        probabilities: Predicted probabilities, ``[N]``.
        right: Whether each was right, ``[N]``.
        bins: Number of bins. Their sizes differ by at most one.

    Raises:
        EvaluationError: The shapes differ, a value is not a probability, or there are fewer
            predictions than bins.

    Example:
        >>> reliability([0.1, 0.8, 0.3, 0.6], [False, True, False, False], bins=2)[1]
        ReliabilityBin(probability=0.7, right=0.5, num=2)
    """
    p, r = _predictions(probabilities, right)
    if not 1 <= bins <= len(p):
        raise EvaluationError(f"expected 1 to {len(p)} bins for as many predictions, got {bins}.")
    order = np.argsort(p, kind="stable")
    return [
        ReliabilityBin(round(float(p[part].mean()), 12), float(r[part].mean()), len(part))
        for part in np.array_split(order, bins)
    ]


def brier_score(probabilities: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Mean squared difference of probabilities and outcomes; 0 is best.

    Raises:
        EvaluationError: The shapes differ, there is none, or a value is not a probability.

    Example:
        >>> brier_score([1.0, 0.5], [True, False])
        0.125
    """
    p, r = _predictions(probabilities, right)
    return float(np.mean((p - r) ** 2))


class AtThreshold(NamedTuple):
    """First matches with a score of at least a threshold.

    Attributes:
        threshold: The threshold.
        precision: Share of them that are right; 1 if there is none.
        recall: Share of the queries for present people that have a right one.
        f1: Harmonic mean of both.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


def at_threshold(
    scores: npt.ArrayLike, right: npt.ArrayLike, present: npt.ArrayLike, threshold: float
) -> AtThreshold:
    """Precision, recall and F1 of the first matches that reach a threshold.

    Args:
        scores: Score of the first match of each query, ``[Q]``.
        right: Whether it is right, ``[Q]``.
        present: Whether the gallery has a right picture, ``[Q]``.
        threshold: Least score.

    Raises:
        EvaluationError: The shapes differ, or no query has a right picture.

    Example:
        >>> at_threshold([0.9, 0.7, 0.2], [True, False, True], [True, False, True], 0.5)
        AtThreshold(threshold=0.5, precision=0.5, recall=0.5, f1=0.5)
    """
    values, flags = np.asarray(scores, np.float64), np.asarray(right, bool)
    known = np.asarray(present, bool)
    if values.ndim != 1 or not values.shape == flags.shape == known.shape or not known.any():
        raise EvaluationError(
            f"expected a score and two flags of each query, one of them for a present person; got "
            f"shapes {values.shape}, {flags.shape} and {known.shape}."
        )
    is_shown = values >= threshold
    num_right = int(np.count_nonzero(flags & is_shown))
    precision = num_right / int(is_shown.sum()) if is_shown.any() else 1.0
    recall = num_right / int(known.sum())
    f1 = 2 * precision * recall / (precision + recall) if num_right else 0.0
    return AtThreshold(threshold, precision, recall, f1)


def fnir_at_fpir(
    present: npt.ArrayLike, right: npt.ArrayLike, absent: npt.ArrayLike, fpir: float
) -> float:
    """The false-negative identification rate at a false-positive identification rate.

    The threshold is the lowest at which at most a share ``fpir`` of the queries for absent people
    have a best score above it. A query for a present person fails if its best score is not above
    the threshold or its best match is wrong (ISO/IEC 19795-1; rank 1).

    Args:
        present: Best score of each query whose person is in the gallery, ``[P]``.
        right: Whether the best match of each is right, ``[P]``.
        absent: Best score of each query whose person is not in the gallery, ``[A]``.
        fpir: Share of the latter that may have a match, from 0 to 1.

    Raises:
        EvaluationError: A list is empty, the shapes differ, or ``fpir`` is out of range.

    Example:
        >>> rate = fnir_at_fpir([0.9, 0.6, 0.8], [True, True, False], [0.7, 0.5, 0.4], fpir=0.34)
        >>> round(rate, 3)
        0.333
    """
    known, outsiders = np.asarray(present, np.float64), np.asarray(absent, np.float64)
    flags = np.asarray(right, bool)
    if not len(known) or known.shape != flags.shape or not len(outsiders):
        raise EvaluationError(
            f"expected scores of both kinds of queries, got {known.shape} with {flags.shape} "
            f"flags, and {outsiders.shape}."
        )
    if not 0 <= fpir <= 1:
        raise EvaluationError(f"expected fpir from 0 to 1, got {fpir}.")
    num_allowed = int(np.floor(fpir * len(outsiders) + 1e-9))
    if num_allowed == len(outsiders):
        return float(np.mean(~flags))
    threshold = np.sort(outsiders)[::-1][num_allowed]
    return float(1 - np.mean(flags & (known > threshold)))


def ndcg_at_k(grades: Sequence[float], all_grades: Sequence[float], k: int) -> float:
    """Normalised discounted cumulative gain with graded truth, linear gains (Järvelin 2002).

    Args:
        grades: Grade of each result, in rank order, 0 or more; for example the share of the asked
            attributes that it shows.
        all_grades: Grades of all pictures of the gallery, in any order.
        k: Depth, 1 or more.

    Returns:
        From 0 to 1; 1 if no picture has a grade above 0.

    Raises:
        EvaluationError: ``k`` is below 1, or a grade is negative or not finite.

    Example:
        >>> round(ndcg_at_k([0.5, 1.0], [1.0, 0.5, 0.0], k=2), 4)
        0.8597
    """
    if k < 1:
        raise EvaluationError(f"expected k of 1 or more, got {k}.")
    ranked, ideal = (np.asarray(list(g), np.float64) for g in (grades, all_grades))
    for values in (ranked, ideal):
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise EvaluationError("expected grades of 0 or more, got a negative or infinite one.")
    best = _gain(np.sort(ideal)[::-1][:k])
    return _gain(ranked[:k]) / best if best > 0 else 1.0


def _gain(grades: npt.NDArray[np.float64]) -> float:
    return float(np.sum(grades / np.log2(np.arange(2, len(grades) + 2))))


def _predictions(
    probabilities: npt.ArrayLike, right: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    p, r = np.asarray(probabilities, np.float64), np.asarray(right, bool).astype(np.float64)
    if p.ndim != 1 or p.shape != r.shape or not len(p):
        raise EvaluationError(
            f"expected as many probabilities as outcomes, got shapes {p.shape} and {r.shape}."
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise EvaluationError("expected probabilities from 0 to 1, got others among them.")
    return p, r
