"""Exact search on Milvus, with ties settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from finegrain.gallery.milvus.address import Consistency
from finegrain.gallery.milvus.connection import MAX_ROWS, PAGE_ROWS, Connection
from finegrain.index.exact import Hit, Ids, Vectors

SPARE_ROWS = 64
"""Rows asked for beyond ``k``, so that equal scores at the last place are seen."""

_GROWTH = 4
_ANSWER_BYTES = 64 * 2**20  # of the vectors in one answer
_LONGEST = 1.01  # of a stored vector, and of a query divided by its length
_UNIT_ROUNDOFF = 2.0**-24  # of float32

Scores = npt.NDArray[np.float32]


class MilvusSearch:
    """The ``k`` best of the documents that match a condition.

    Milvus adds up in single precision and leaves equal scores in any order. So some more than
    ``k`` rows are asked for, their scores are computed again in double precision, and the answer
    stands when everything Milvus left out is below its last one by more than the error that
    single precision can make. Otherwise, as among many equal vectors, it asks for more, and
    beyond what Milvus gives at once it reads all vectors, in pages.

    Args:
        connection: To the server or file.
        collection: What to search.
        condition: Of the documents to look at.
        dim: Width of the vectors.
        consistency: Of the search.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        condition: str,
        *,
        dim: int,
        consistency: Consistency,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._condition = condition
        self._consistency = consistency
        # Of a sum of dim products in single precision (Higham, section 3.1), of the query's
        # rounding before it, and of the score's after.
        self._error = (dim + 2) * _UNIT_ROUNDOFF * _LONGEST**2
        self._answer_rows = max(1, _ANSWER_BYTES // (4 * dim))

    def __call__(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """Hits of queries ``[Q, D]``, best first, equal scores by ascending id."""
        found: dict[int, list[Hit]] = {}
        limit = k + SPARE_ROWS
        while len(found) < len(queries) and limit <= min(MAX_ROWS, self._answer_rows):
            pending = [number for number in range(len(queries)) if number not in found]
            at_once = max(1, self._answer_rows // limit)
            for start in range(0, len(pending), at_once):
                some = pending[start : start + at_once]
                settled = self._ask(queries[some], k, limit)
                found |= {
                    n: hits for n, hits in zip(some, settled, strict=True) if hits is not None
                }
            limit *= _GROWTH
        pending = [number for number in range(len(queries)) if number not in found]
        found |= dict(zip(pending, self._read_all(queries[pending], k), strict=True))
        return [found[number] for number in range(len(queries))]

    def _ask(self, queries: Vectors, k: int, limit: int) -> list[list[Hit] | None]:
        answers = self._connection.nearest(
            self._collection, _directions(queries), limit, self._condition, self._consistency
        )
        return [
            self._settled(answer, query, k, is_all=len(answer) < limit)
            for answer, query in zip(answers, queries, strict=True)
        ]

    def _settled(
        self,
        answer: Sequence[tuple[int, float, list[float]]],
        query: Vectors,
        k: int,
        *,
        is_all: bool,
    ) -> list[Hit] | None:
        """The ``k`` best, or None when a row that Milvus left out may be among them."""
        if not answer:
            return []
        ids = np.array([id_ for id_, _, _ in answer], np.int64)
        vectors = np.array([vector for _, _, vector in answer], np.float32)
        best = _best(ids, _scores(vectors, query), k)
        if is_all:
            return best
        left_out = min(score for _, score, _ in answer) + self._error
        length = float(np.linalg.norm(query.astype(np.float64)))
        return best if best[-1].score > length * left_out else None

    def _read_all(self, queries: Vectors, k: int) -> list[list[Hit]]:
        if not len(queries):
            return []
        kept: list[tuple[Ids, Scores]] = [
            (np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries
        ]
        for ids, vectors in vector_pages(
            self._connection, self._collection, self._condition, self._answer_rows, after=0
        ):
            for number, query in enumerate(queries):
                every_id = np.concatenate([kept[number][0], ids])
                every_score = np.concatenate([kept[number][1], _scores(vectors, query)])
                order = np.lexsort((every_id, -every_score))[:k]
                kept[number] = every_id[order], every_score[order]
        return [_best(ids, scores, k) for ids, scores in kept]


def vector_pages(
    connection: Connection, collection: str, condition: str, most_rows: int, *, after: int
) -> Iterable[tuple[Ids, Vectors]]:
    """Ids above ``after`` and vectors ``[n, D]`` that match, ascending."""
    rows = min(most_rows, PAGE_ROWS)
    for page in connection.pages(collection, condition, ["vector"], after=after, rows=rows):
        yield (
            np.array([document["id"] for document in page], np.int64),
            np.array([document["vector"] for document in page], np.float32),
        )


def _directions(queries: Vectors) -> Vectors:
    """Queries of length 1, which no single precision overflows; the order is the same."""
    wide = queries.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _scores(vectors: Vectors, query: Vectors) -> Scores:
    return (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def _best(ids: Ids, scores: Scores, k: int) -> list[Hit]:
    order = np.lexsort((ids, -scores))[:k]
    return list(map(Hit, ids[order].tolist(), scores[order].tolist()))
