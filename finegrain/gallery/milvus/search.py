"""Exact search on Milvus, with a defined order of equal scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from finegrain.gallery.entries import MAX_BIAS
from finegrain.gallery.milvus.address import Consistency
from finegrain.gallery.milvus.connection import MAX_ROWS, PAGE_ROWS, Connection
from finegrain.index.exact import Hit, Ids, Vectors

SPARE_ROWS = 64
"""Rows requested beyond ``k``, so that equal scores at the last rank are included."""

_GROWTH = 4
_ANSWER_BYTES = 64 * 2**20  # most bytes of vectors in one response
_LONGEST = 1.01  # bound on the length of a stored vector and of a normalised query
_UNIT_ROUNDOFF = 2.0**-24  # unit roundoff of float32

Scores = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class MilvusSearch:
    """Finds the ``k`` best of the documents that match a condition.

    Milvus sums in single precision and returns equal scores in any order. The search therefore
    requests more than ``k`` rows and computes their scores again in double precision. The result
    is certain if every row that Milvus left out scores below the last hit by more than the error
    of single precision. Otherwise, for example among many equal vectors, the search requests more
    rows. If Milvus cannot return enough rows at once, the search reads all vectors in pages.

    A stored vector may end with the bias of its picture. The query then ends with 1.

    Args:
        connection: Connection to the server or file.
        collection: Name of the collection.
        condition: Condition on the documents to search.
        dim: Width of the vectors, without their bias.
        has_biases: Whether a stored vector ends with a bias.
        consistency: Consistency of the search.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        condition: str,
        *,
        dim: int,
        consistency: Consistency,
        has_biases: bool = False,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._condition = condition
        self._consistency = consistency
        # Error bound of a sum of dim products in single precision (Higham, Accuracy and
        # Stability of Numerical Algorithms, section 3.1), plus the rounding of the query before
        # the sum and of the score after it.
        self._error = (dim + 3) * _UNIT_ROUNDOFF * _LONGEST**2
        self._has_biases = has_biases
        self._answer_rows = max(1, _ANSWER_BYTES // (4 * (dim + has_biases)))

    def __call__(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """Hits of queries ``[Q, D]``, best first; equal scores by ascending id."""
        hits_of: dict[int, list[Hit]] = {}
        limit = k + SPARE_ROWS
        while len(hits_of) < len(queries) and limit <= min(MAX_ROWS, self._answer_rows):
            pending = [number for number in range(len(queries)) if number not in hits_of]
            at_once = max(1, self._answer_rows // limit)
            for start in range(0, len(pending), at_once):
                batch = pending[start : start + at_once]
                answers = self._request(queries[batch], k, limit)
                hits_of |= {
                    n: hits for n, hits in zip(batch, answers, strict=True) if hits is not None
                }
            limit *= _GROWTH
        pending = [number for number in range(len(queries)) if number not in hits_of]
        hits_of |= dict(zip(pending, self._read_all(queries[pending], k), strict=True))
        return [hits_of[number] for number in range(len(queries))]

    def _request(self, queries: Vectors, k: int, limit: int) -> list[list[Hit] | None]:
        wide = self._ended(queries)
        answers = self._connection.nearest(
            self._collection, _directions(wide), limit, self._condition, self._consistency
        )
        return [
            self._certain(answer, query, k, is_all=len(answer) < limit)
            for answer, query in zip(answers, wide, strict=True)
        ]

    def _ended(self, queries: Vectors) -> Doubles:
        """Queries whose inner products with stored vectors include the bias."""
        wide = queries.astype(np.float64)
        return np.pad(wide, ((0, 0), (0, 1)), constant_values=1) if self._has_biases else wide

    def _certain(
        self,
        answer: Sequence[tuple[int, float, list[float]]],
        query: Doubles,
        k: int,
        *,
        is_all: bool,
    ) -> list[Hit] | None:
        """The ``k`` best, or None if a row that Milvus left out may be among them."""
        if not answer:
            return []
        ids = np.array([id_ for id_, _, _ in answer], np.int64)
        vectors = np.array([vector for _, _, vector in answer], np.float32)
        best = _best(ids, _scores(vectors, query), k)
        if is_all:
            return best
        length = float(np.linalg.norm(query))
        lowest = min(score for _, score, _ in answer)
        left_out = lowest + self._rounding(lowest, length)
        return best if best[-1].score > length * left_out else None

    def _rounding(self, lowest: float, length: float) -> float:
        """How far the score of a row that was left out may be above the lowest one returned.

        The error is proportional to the sum of the absolute products. Those with the vector are
        at most 1 together. That with the bias is at most the score and these; a row with a larger
        one was returned, or has a score far below. It is also at most the largest bias, divided
        by the length of the query.
        """
        if not self._has_biases:
            return self._error
        return 1.02 * self._error * (1 + min(abs(lowest) + 1, MAX_BIAS / max(length, 1.0)))

    def _read_all(self, queries: Vectors, k: int) -> list[list[Hit]]:
        if not len(queries):
            return []
        wide = self._ended(queries)
        best: list[tuple[Ids, Scores]] = [
            (np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries
        ]
        for ids, vectors in vector_pages(
            self._connection, self._collection, self._condition, self._answer_rows, after=0
        ):
            for number, query in enumerate(wide):
                every_id = np.concatenate([best[number][0], ids])
                every_score = np.concatenate([best[number][1], _scores(vectors, query)])
                order = np.lexsort((every_id, -every_score))[:k]
                best[number] = every_id[order], every_score[order]
        return [_best(ids, scores, k) for ids, scores in best]


def vector_pages(
    connection: Connection, collection: str, condition: str, most_rows: int, *, after: int
) -> Iterable[tuple[Ids, Vectors]]:
    """Pages of matching ids above ``after``, ascending, with their vectors ``[n, D]``."""
    rows = min(most_rows, PAGE_ROWS)
    for page in connection.pages(collection, condition, ["vector"], after=after, rows=rows):
        yield (
            np.array([document["id"] for document in page], np.int64),
            np.array([document["vector"] for document in page], np.float32),
        )


def _directions(queries: Doubles) -> Vectors:
    """Queries scaled to length 1, to avoid overflow in single precision; same ranking."""
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    return (queries / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _scores(vectors: Vectors, query: Doubles) -> Scores:
    return (vectors.astype(np.float64) @ query).astype(np.float32)


def _best(ids: Ids, scores: Scores, k: int) -> list[Hit]:
    order = np.lexsort((ids, -scores))[:k]
    return list(map(Hit, ids[order].tolist(), scores[order].tolist()))
