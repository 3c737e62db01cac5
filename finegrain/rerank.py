"""Re-ranking: orders the candidates of a search with a match head.

The retriever compares two vectors. The match head reads the words of the query together with the
tokens of a picture, which costs about ten thousand times as much, so it should score few
candidates.

There are two orders. The order ``"both"`` is ``cosine + weight * probability``, where the
probability of a match comes from the head. The probability lies between 0 and 1, so the score of a
candidate is at most ``cosine + weight``. The candidates are sorted by cosine. Once the ``k``-th
best score is above the bound of the next candidate, no further candidate can enter the first ``k``,
and the rest is not scored. The result is the same as if all candidates were scored (the threshold
algorithm of Fagin, Lotem and Naor, PODS 2001, https://arxiv.org/abs/cs/0204046). The number of
scored candidates depends on the cosines of each query.

The order ``"match"`` uses the scores of the match head alone, as reported in RaSa's paper (Bai et
al. 2023, https://arxiv.org/abs/2305.13653). The scores are logits: probabilities near 1 would be
equal in floating point. A score has no upper bound, so every candidate is scored.
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
"""Number of candidates that a head scores at a time; a small number allows an early stop."""

RerankBy = Literal["both", "match"]
"""``both`` is ``cosine + weight * probability``; ``match`` is the match head alone."""

Match = Callable[[slice], Matched]
"""Scores a slice of the candidates with the match head."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reranked:
    """Candidates in their new order.

    Attributes:
        order: Positions of the candidates, best first, ``[C]``. Only the first ``k`` are exact:
            after them, candidates that were not scored are ordered by their cosine.
        probability: Probability of a match of each candidate, ``[C]``, in the original order; NaN
            for a candidate that was not scored.
    """

    order: NDArray[np.intp]
    probability: Scores

    @property
    def num_scored(self) -> int:
        """Number of candidates that the match head scored."""
        return int(np.count_nonzero(~np.isnan(self.probability)))


def rerank(
    cosines: NDArray[np.floating], match: Match, k: int, *, weight: float, batch: int
) -> Reranked:
    """Order candidates by ``cosine + weight * probability``.

    The first ``k`` are the same as if every candidate was scored. Candidates with equal scores keep
    their order.

    Args:
        cosines: Cosines of the candidates, descending, ``[C]``.
        match: Scores a slice of the candidates with the match head.
        k: Number of results that are needed.
        weight: Weight of the probability against the cosine.
        batch: Number of candidates that the head scores at a time.

    Example:
        >>> from finegrain.records import Matched
        >>> logits = np.array([-4.0, 4.0, 0.0])
        >>> match = lambda rows: Matched(logits[rows], logits[rows])
        >>> result = rerank(np.array([0.4, 0.3, 0.1]), match, k=1, weight=0.15, batch=1)
        >>> result.order, result.probability.round(3), result.num_scored
        (array([1, 0, 2]), array([0.018, 0.982,   nan]), 2)
    """
    retrieved = np.asarray(cosines, np.float64)
    probability = np.full(len(retrieved), np.nan)
    scores = retrieved.copy()
    for start in range(0, len(retrieved), batch):
        if start >= k and _settled(scores[:start], k, retrieved[start] + weight):
            break
        rows = slice(start, min(start + batch, len(retrieved)))
        probability[rows] = probability_of(match(rows).logits)
        scores[rows] += weight * probability[rows]
    # A candidate that was not scored is below the k-th best score for any probability.
    return Reranked(order=np.argsort(-scores, kind="stable"), probability=probability)


def rerank_by_match(count: int, match: Match, *, batch: int) -> Reranked:
    """Order ``count`` candidates by the scores of the match head alone.

    Args:
        match, batch: As in :func:`rerank`.
    """
    probability, scores = np.empty(count), np.empty(count)
    for start in range(0, count, batch):
        rows = slice(start, min(start + batch, count))
        matched = match(rows)
        probability[rows], scores[rows] = probability_of(matched.logits), matched.scores
    return Reranked(order=np.argsort(-scores, kind="stable"), probability=probability)


def _settled(scores: Scores, k: int, reachable: float) -> bool:
    """Whether the ``k``-th best score is above the best score that later candidates can reach."""
    return bool(np.partition(scores, -k)[-k] > reachable)


def probability_of(logits: NDArray[np.floating]) -> Scores:
    """The sigmoid of logits, float64."""
    # tanh does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))
