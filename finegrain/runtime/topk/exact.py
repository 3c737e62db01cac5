"""What a search answers, by reading everything."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from finegrain.gallery.estimate import Ids, Query, Vectors
from finegrain.gallery.index import Hit

SLICE_ROWS = 16_384
"""Rows scored together: in float64 and at width 512, 64 MiB."""


class TopK(Protocol):
    """Finds the vectors with the highest inner products."""

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The ``k`` best of each query ``[Q, D]``, best first, equal scores by ascending id.

        A score is the sum in float64, rounded to float32. Where there are fewer than ``k``
        vectors, all come back.
        """


class ExactTopK:
    """The reference: all scores, all sorted.

    Args:
        ids: Ascending, ``[N]``.
        vectors: ``[N, D]``.
    """

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self._ids = ids
        self._vectors = vectors

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """See :class:`TopK`."""
        every = np.arange(len(self._ids))
        return [best(self._ids, every, exact_scores(query, self._vectors), k) for query in queries]


def exact_scores(query: Vectors, vectors: Vectors) -> Vectors:
    """Scores of one query ``[D]`` with ``[N, D]``, slice by slice."""
    wide = Query(query.astype(np.float64))
    slices = (vectors[i : i + SLICE_ROWS] for i in range(0, len(vectors), SLICE_ROWS))
    return np.concatenate([np.empty(0, np.float32), *map(wide.scores, slices)])


def best(ids: Ids, rows: Ids, scores: Vectors, k: int) -> list[Hit]:
    """The first ``k`` of some rows, whose scores are given."""
    order = np.lexsort((rows, -scores))[:k]
    return list(map(Hit, ids[rows[order]].tolist(), scores[order].tolist()))
