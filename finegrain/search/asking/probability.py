"""Probabilities of matches, and the answer that nobody in the gallery fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finegrain.errors import QueryError
from finegrain.evaluation.match_probability import Level, MatchProbability
from finegrain.gallery import Hit
from finegrain.gallery.scoring import Linear, Scoring
from finegrain.index.exact import Vectors
from finegrain.search.matches import Match, Matches

NOT_CALIBRATED = (
    "the plan has no calibration, so matches have no probability and min_probability was not "
    "applied. Add one with: finegrain calibrate PLAN --queries FILE"
)
NOT_BY_WORDS = (
    "min_probability was not applied: only queries by words have a probability, and those with "
    "pictures or feedback have none"
)


def checked_probability(value: Any) -> float | None:
    """The argument ``min_probability`` of a query.

    Raises:
        QueryError: It is neither None nor a number from 0 to 1.
    """
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise QueryError(f"expected min_probability from 0 to 1, or None, got {value!r:.40}")
    return float(value)


def probabilities(
    calibration: MatchProbability,
    scoring: Scoring,
    hits: Sequence[Hit],
    sample: Vectors,
    size: int,
    biases: Vectors | None = None,
) -> dict[int, float]:
    """The probability of each hit, by id.

    Args:
        calibration: The coefficients.
        scoring: The score of the query.
        hits: The hits from the first rank on.
        sample: Vectors of the gallery, ``[S, D]``.
        size: Number of pictures in the gallery.
        biases: What the scores of the hits include besides: the biases of the sample, ``[S]``.
    """
    if not hits:
        return {}
    scores = np.array([hit.score for hit in hits])
    # float32 is exact enough for a mean and a deviation, and several times faster
    is_linear = isinstance(scoring, Linear) and not scoring.offset
    scores_of_sample = sample @ scoring.vector if is_linear else scoring.scores(sample)
    if biases is not None:
        scores_of_sample = scores_of_sample + biases
    level = Level.of(scores_of_sample, size)
    chances = calibration.of(scores, float(scores.max()), level)
    return dict(zip([hit.id for hit in hits], chances.tolist(), strict=True))


def probable(matches: Matches, least: float, size: int) -> Matches:
    """The matches with at least this probability; if there is none, the best that was rejected."""
    kept = [match for match in matches if _probability(match) >= least]
    if kept or not matches:
        return Matches(matches.query, kept, notes=matches.notes)
    best = max(matches, key=_probability)
    note = (
        f"nobody in the gallery fits this: the best of {size:,} pictures has probability "
        f"{_probability(best):.2f}, below {least:g}"
    )
    return Matches(matches.query, [], notes=(note, *matches.notes), rejected=best)


def _probability(match: Match) -> float:
    return 0.0 if match.probability is None else match.probability
