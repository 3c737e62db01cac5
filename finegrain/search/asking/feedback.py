"""Search with pictures that were judged right or wrong.

The score keeps words and pictures apart, because embeddings of texts and of pictures are in
different regions::

    s = z(query . g) + LIKE * z(mean of liked . g) - UNLIKE * z(mean of disliked . g)

where ``z`` subtracts the mean and divides by the standard deviation over the gallery. It is given
in the units of the query's own score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegrain.gallery.scoring import Scores, Scoring
from finegrain.index.exact import Vectors

LIKE = 0.5
UNLIKE = 0.25
_NO_SPREAD = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A score plus what judged pictures add to it.

    Attributes:
        base: The score of the query.
        direction: Sum of the judged pictures with their weights, ``[D]``.
        shift: Makes the mean over the sample that of ``base``.
    """

    base: Scoring
    direction: Vectors
    shift: float

    @property
    def vector(self) -> Vectors:
        return self.base.vector + self.direction

    @property
    def offset(self) -> float:
        return self.base.offset + self.shift

    def scores(self, rows: Vectors) -> Scores:
        added: Scores = rows.astype(np.float64) @ self.direction + self.shift
        return self.base.scores(rows) + added


def judged(
    base: Scoring, like: Sequence[Vectors], unlike: Sequence[Vectors], sample: Vectors
) -> Judged:
    """The score of a query after feedback.

    Args:
        base: The score of the query.
        like, unlike: Vectors ``[D]`` of the pictures that were judged right and wrong.
        sample: Vectors of the gallery, ``[S, D]``, over which ``z`` is computed.
    """
    spread = float(np.std(base.scores(sample)))
    rows = sample.astype(np.float64)
    direction = np.zeros(rows.shape[1])
    for vectors, weight in ((like, LIKE), (unlike, -UNLIKE)):
        if vectors:
            mean = np.mean(vectors, axis=0, dtype=np.float64)
            deviation = float(np.std(rows @ mean))
            if deviation > _NO_SPREAD:  # else all pictures are equally near
                direction += weight * spread / deviation * mean
    rounded = direction.astype(np.float32)
    return Judged(base, rounded, -float(np.mean(rows @ rounded)))
