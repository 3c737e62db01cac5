"""Exact search over vectors that are in the gallery's file and not in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from finegrain.index.backend import Truth
from finegrain.index.biases import Biases
from finegrain.index.estimate import Doubles, Ids, Query, Vectors, longest_of
from finegrain.index.exact import Hit

_FETCH_ROWS = 8192  # 16 MiB of vectors at width 512


Chunk = tuple[Ids, Vectors]
"""Ids ``[n]``, ascending, and their vectors ``[n, D]``."""


def everything(truth: Truth) -> Iterator[Chunk]:
    """All rows in chunks. Each chunk is a new query, so rows may change in between."""
    last_id = 0
    while (chunk := next(truth.vectors_after(last_id), None)) is not None:
        yield chunk
        last_id = int(chunk[0][-1])


def fetched(truth: Truth, ids: Ids) -> Iterator[Chunk]:
    """The rows with these ids (ascending) in chunks; ids that are not stored are left out."""
    for start in range(0, len(ids), _FETCH_ROWS):
        vectors = truth.vectors(ids[start : start + _FETCH_ROWS].tolist())
        if stored := sorted(vectors):
            yield np.array(stored, np.int64), np.stack([vectors[id_] for id_ in stored])


def exact_best(
    chunks: Iterable[Chunk], queries: Sequence[Query], k: int, biases: Biases
) -> list[list[Hit]]:
    """The ``k`` best of all rows for each query, best first; equal scores by ascending id.

    Scores and order are those of :class:`~finegrain.index.exact.VectorIndex`. A matrix product in
    float32, whose rounding error is bounded (:meth:`~finegrain.index.estimate.Query.rounding`),
    selects the few rows of a chunk that may be among the best; these get exact scores.
    """
    leaders = [_Leaders(query, k) for query in queries]
    directions = np.array([query.direction for query in queries], np.float32)
    for ids, vectors in chunks:
        longest, added = longest_of(vectors), biases.of(ids)
        for leader, estimates in zip(leaders, directions @ vectors.T, strict=True):
            leader.update(ids, vectors, estimates.astype(np.float64), longest, added)
    return [leader.hits() for leader in leaders]


class _Leaders:
    """The ``k`` best rows so far for one query."""

    def __init__(self, query: Query, k: int) -> None:
        self._query = query
        self._k = k
        self._ids: Ids = np.empty(0, np.int64)
        self._scores: Vectors = np.empty(0, np.float32)

    def update(
        self,
        ids: Ids,
        vectors: Vectors,
        estimates: Doubles,
        longest: float,
        biases: Vectors | None,
    ) -> None:
        error = self._query.rounding(longest, biases)
        if biases is not None:
            estimates += biases.astype(np.float64) / self._query.length
        # k rows of this chunk score at least the k-th estimate minus its error; the k best rows
        # so far score at least the previous bar.
        bar = max(_kth(estimates, self._k) - error, self._bar())
        rows = np.flatnonzero(estimates >= bar - error)
        all_ids = np.concatenate([self._ids, ids[rows]])
        own = None if biases is None else biases[rows]
        all_scores = np.concatenate([self._scores, self._query.scores(vectors[rows], own)])
        order = np.lexsort((all_ids, -all_scores))[: self._k]
        self._ids, self._scores = all_ids[order], all_scores[order]

    def hits(self) -> list[Hit]:
        return list(map(Hit, self._ids.tolist(), self._scores.tolist()))

    def _bar(self) -> float:
        full = len(self._scores) == self._k
        return float(self._scores[-1]) / self._query.length if full else -np.inf


def _kth(scores: npt.NDArray[np.floating], k: int) -> float:
    return float(np.partition(scores, -k)[-k]) if len(scores) >= k else -np.inf
