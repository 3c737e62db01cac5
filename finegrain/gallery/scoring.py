"""Exact search by scores that are not an inner product, such as a score minus a penalty."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import QueryError
from finegrain.gallery.backend import Backend, Search
from finegrain.index.exact import Hit, Vectors

Scores = NDArray[np.float64]

_GROWTH = 4
_LEAST_DEPTH = 64
_ROWS_AT_ONCE = 4096
_BESIDE_BIASES = 2.0**60
_ROUNDING = 1e-5
"""Error of float32 inner products of width 4,096, relative to the length of the query."""


class Scoring(Protocol):
    """A score of pictures that is at most an inner product plus a number."""

    @property
    def vector(self) -> Vectors:
        """The vector that an index searches for, float32 ``[D]``."""

    @property
    def offset(self) -> float:
        """What the score of a picture never exceeds its inner product with ``vector`` by."""

    def scores(self, rows: Vectors) -> Scores:
        """The scores of pictures, float64 ``[N]``, from their vectors ``[N, D]``."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A score that is an inner product plus a number."""

    vector: Vectors
    offset: float = 0.0

    def scores(self, rows: Vectors) -> Scores:
        return rows.astype(np.float64) @ self.vector + self.offset


def without_biases(search: Search) -> Search:
    """A search by inner products alone, from one that adds the biases of pictures.

    Each query is multiplied by a large power of two, beside which the biases vanish in rounding.
    The product with a power of two rounds nothing, so the scores are those of inner products.
    """

    def unbiased(queries: Vectors, k: int) -> list[list[Hit]]:
        with np.errstate(over="ignore"):
            multiplied = queries * np.float32(_BESIDE_BIASES)
        if not np.isfinite(multiplied).all():
            raise QueryError("A query vector holds numbers that are too large; normalise it.")
        hits = search(multiplied, k)
        return [[Hit(hit.id, hit.score / _BESIDE_BIASES) for hit in row] for row in hits]

    return unbiased


class ScoredSearch:
    """A search function for one :class:`Scoring`.

    It scores the pictures nearest to ``vector``, and goes deeper until the bound shows that no
    other picture can be among the best. The result equals that of scoring every picture.

    Args:
        store: Source of vectors.
        search: Searches by inner product.
        scoring: The score.
        without: Ids of pictures to leave out.
        biased: Whether ``search`` adds the biases of pictures; the score then adds them, too.
    """

    def __init__(
        self,
        store: Backend,
        search: Search,
        scoring: Scoring,
        without: Collection[int] = (),
        *,
        biased: bool = True,
    ) -> None:
        self._store = store
        self._search = search
        self._scoring = scoring
        self._without = frozenset(without)
        self._biased = biased
        self._slack = _ROUNDING * max(1.0, float(np.linalg.norm(scoring.vector)))
        self._scored: dict[int, float] = {}

    def __call__(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The ``k`` best hits by score; ``queries`` is ``scoring.vector`` as ``[1, D]``."""
        depth = max(_LEAST_DEPTH, k + len(self._without) + 1)
        while True:
            (nearest,) = self._search(queries, depth)
            best = self._best(nearest, k)
            if len(nearest) < depth:
                return [best]
            others = nearest[-1].score + self._scoring.offset + self._slack
            if len(best) == k and best[-1].score > others:
                return [best]
            depth *= _GROWTH

    def _best(self, nearest: Sequence[Hit], k: int) -> list[Hit]:
        seen = self._scored.keys() | self._without
        new_ids = [hit.id for hit in nearest if hit.id not in seen]
        for start in range(0, len(new_ids), _ROWS_AT_ONCE):
            vectors = self._store.vectors(new_ids[start : start + _ROWS_AT_ONCE])
            if vectors:
                scores = self._scoring.scores(np.stack(list(vectors.values())))
                biases = self._store.biases(vectors) if self._biased else {}
                for id_, score in zip(vectors, scores.tolist(), strict=True):
                    self._scored[id_] = score + biases.get(id_, 0.0)
        ranked = sorted((-self._scored[h.id], h.id) for h in nearest if h.id in self._scored)
        return [Hit(id_, -score) for score, id_ in ranked[:k]]
