"""Re-ranking: the candidates of a search, put in order by a head that looks at both sides.

The first stage compares two vectors; the second reads the words of the query beside the tokens
of a picture, which costs about ten thousand times as much. So it must look at few.

There are two orders. The order by both stages is ``cosine + weight * probability``, the
probability of a match being the head's. It lies between 0 and 1, so a candidate that the head has
not scored yet reaches at most ``cosine + weight``. Candidates come in the order of their cosines:
once the ``k``-th best score is above what the next one can reach, no other can enter the first
``k``, and the rest is not scored. The answer is exactly that of scoring all (the threshold
algorithm of Fagin, Lotem and Naor 2001); how many are scored follows from the gap in the cosines
of each query.

The order by the match head alone, which RaSa's paper reports, is that of its scores. They are
logits: probabilities near 1 are equal in floating point, and would leave the order to the cosine.
A score has no upper bound, so every candidate is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finegrain.records import Matched

Scores = NDArray[np.float64]

MATCHED_AT_ONCE = 16
"""Candidates that a head scores at a time: few, so that it can stop early."""

RerankBy = Literal["both", "match"]
"""``both`` is ``cosine + weight * probability``; ``match`` is the match head alone."""

Match = Callable[[slice], Matched]
"""What the head says of a run of the candidates."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reranked:
    """Candidates in their new order.

    Attributes:
        order: Places among the candidates, best first, ``[C]``; after the first ``k``, those
            that were not scored stay as they were.
        probability: Of a match, by place among the candidates, ``[C]``; NaN where the head was
            not asked.
    """

    order: NDArray[np.intp]
    probability: Scores

    @property
    def num_scored(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.probability)))


def rerank(
    cosines: NDArray[np.floating], match: Match, k: int, *, weight: float, batch: int
) -> Reranked:
    """Put candidates in the order of ``cosine + weight * probability``.

    The first ``k`` are those of scoring every candidate, equal scores in the candidates' order.

    Args:
        cosines: Of the candidates, descending, ``[C]``.
        match: Asks the head about a slice of the candidates.
        k: How many of the order will be read.
        weight: What a certain match is worth in cosine.
        batch: Candidates that the head scores at a time.
    """
    first = np.asarray(cosines, np.float64)
    probability = np.full(len(first), np.nan)
    scores = first.copy()
    for start in range(0, len(first), batch):
        if start >= k and _settled(scores[:start], k, first[start] + weight):
            break
        asked = slice(start, min(start + batch, len(first)))
        probability[asked] = probability_of(match(asked).logits)
        scores[asked] += weight * probability[asked]
    # A candidate that was not scored is below the k-th best with any score it can have.
    return Reranked(order=np.argsort(-scores, kind="stable"), probability=probability)


def rerank_by_match(count: int, match: Match, *, batch: int) -> Reranked:
    """Put ``count`` candidates in the order of the match head alone, by its scores.

    Args:
        match, batch: As in :func:`rerank`.
    """
    probability, scores = np.empty(count), np.empty(count)
    for start in range(0, count, batch):
        asked = slice(start, min(start + batch, count))
        matched = match(asked)
        probability[asked], scores[asked] = probability_of(matched.logits), matched.scores
    return Reranked(order=np.argsort(-scores, kind="stable"), probability=probability)


def _settled(scores: Scores, k: int, reachable: float) -> bool:
    """Whether the ``k``-th best score is above all that is still to come."""
    return bool(np.partition(scores, -k)[-k] > reachable)


def probability_of(logits: NDArray[np.floating]) -> Scores:
    """The sigmoid, in fp64."""
    # By halves of tanh, which does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))
