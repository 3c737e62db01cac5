"""The score of a query with denied phrases.

A picture loses what a denied phrase adds to its score beyond the background, the mean score of the
phrase over the gallery::

    s = query(g) - sum over denied phrases of max(0, d . g - mean(d . g))

A picture without the denied thing gains nothing from being especially far from it. Where the query
has a picture, ``d`` is multiplied so that both scores have the same spread over the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finegrain.gallery.scoring import Scores, Scoring
from finegrain.index.exact import Vectors

_NO_SPREAD = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Denied:
    """A score that denied phrases lower.

    Attributes:
        base: The score of what is asked for.
        phrases: Embeddings of the denied phrases, ``[M, D]``.
        background: Mean score of each phrase over the gallery, ``[M]``.
    """

    base: Scoring
    phrases: Vectors
    background: Scores

    @classmethod
    def over(
        cls, sample: Vectors, base: Scoring, phrases: Vectors, *, same_spread: bool = False
    ) -> Denied:
        """Take the background from a sample of the gallery, ``[S, D]``.

        Args:
            sample: Vectors of the gallery.
            base: The score of what is asked for.
            phrases: Embeddings of the denied phrases, ``[M, D]``.
            same_spread: Give the score of each phrase the standard deviation of ``base``.
        """
        if same_spread:
            spreads = np.std(sample.astype(np.float64) @ phrases.T, axis=0)
            factors = np.std(base.scores(sample)) / np.maximum(spreads, _NO_SPREAD)
            phrases = (phrases * factors[:, None]).astype(np.float32)
        background = sample.mean(axis=0, dtype=np.float64) @ phrases.astype(np.float64).T
        return cls(base, phrases, background)

    # A penalty max(0, x) is at least x / 2, so half of it is a linear bound. It is the tightest of
    # its kind for pictures near the background, from which most of the answer comes.
    @property
    def vector(self) -> Vectors:
        bound: Vectors = self.base.vector - 0.5 * self.phrases.sum(axis=0)
        return bound

    @property
    def offset(self) -> float:
        return self.base.offset + 0.5 * float(self.background.sum())

    def scores(self, rows: Vectors) -> Scores:
        excess = np.maximum(rows.astype(np.float64) @ self.phrases.T - self.background, 0)
        scores: Scores = self.base.scores(rows) - excess.sum(axis=1)
        return scores
