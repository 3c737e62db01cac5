"""The score of a query with denied phrases.

A picture loses what a denied phrase adds to its score beyond the background, the mean score of the
phrase over the gallery::

    s = t . g - sum over denied phrases of max(0, d . g - mean(d . g))

A picture without the denied thing gains nothing from being especially far from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finegrain.gallery.scoring import Scores
from finegrain.index.exact import Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Denied:
    """A score that denied phrases lower.

    Attributes:
        wanted: Embedding of what is asked for, ``[D]``.
        phrases: Embeddings of the denied phrases, ``[M, D]``.
        background: Mean score of each phrase over the gallery, ``[M]``.
    """

    wanted: Vectors
    phrases: Vectors
    background: Scores

    @classmethod
    def over(cls, sample: Vectors, wanted: Vectors, phrases: Vectors) -> Denied:
        """Take the background from a sample of the gallery, ``[S, D]``."""
        background = sample.mean(axis=0, dtype=np.float64) @ phrases.astype(np.float64).T
        return cls(wanted, phrases, background)

    # A penalty max(0, x) is at least x / 2, so half of it is a linear bound. It is the tightest of
    # its kind for pictures near the background, from which most of the answer comes.
    @property
    def vector(self) -> Vectors:
        bound: Vectors = self.wanted - 0.5 * self.phrases.sum(axis=0)
        return bound

    @property
    def offset(self) -> float:
        return 0.5 * float(self.background.sum())

    def scores(self, rows: Vectors) -> Scores:
        exact = rows.astype(np.float64)
        excess = np.maximum(exact @ self.phrases.T - self.background, 0)
        scores: Scores = exact @ self.wanted - excess.sum(axis=1)
        return scores
