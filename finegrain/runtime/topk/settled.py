"""From estimates in half precision to the exact answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.estimate import Ids, Query, Vectors, longest_of
from finegrain.gallery.index import Hit
from finegrain.runtime.topk.exact import SLICE_ROWS, best, exact_scores

Halves = npt.NDArray[np.float16]

SPARE = 64
"""Rows that are estimated beyond ``k``; the more, the less often a search goes deeper."""
DEEPER = 4
QUERIES_AT_ONCE = 16
"""Bounds the memory for estimates: 64 MB over a million rows."""


class Scan(Protocol):
    """Estimates scores of all vectors, which it holds in fp16, and gives the highest.

    Attributes:
        max_depth: Most rows it can give for a query.
    """

    max_depth: int

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """Rows and estimates, best first, both ``[Q, depth]``; there are as many rows.

        An estimate is the inner product of ``queries`` ``[Q, D]`` and a row, both in fp16,
        summed in float32 in any order.
        """


@dataclass(frozen=True, slots=True)
class Halving:
    """What vectors lost when they were rounded to fp16.

    Attributes:
        moved: No vector moved by more (L2).
        longest: No vector is longer, before or after.
    """

    moved: float
    longest: float

    def joined(self, other: Halving) -> Halving:
        """Of the vectors of both."""
        return Halving(max(self.moved, other.moved), max(self.longest, other.longest))

    def error(self, query: Query, sent: npt.NDArray[np.floating]) -> float:
        """No estimate is further than this from ``query.scores / query.length``.

        With the direction ``u`` of a query, what was sent of it ``u'``, a vector ``v`` and what
        is kept of it ``v'``, ``|u·v - u'·v'| <= |u||v - v'| + |u - u'||v'|``. The sum is rounded
        as :meth:`Query.rounding` says.
        """
        turned = float(np.linalg.norm(query.direction - sent.astype(np.float64)))
        return self.moved + turned * self.longest + query.rounding(self.longest)


def halve(vectors: Vectors) -> tuple[Halves, Halving]:
    """Vectors ``[N, D]`` in fp16, and what that cost.

    Raises:
        GalleryError: A number is beyond fp16.
    """
    halves = np.empty(vectors.shape, np.float16)
    moved = longest = 0.0
    for start in range(0, len(vectors), SLICE_ROWS):
        some = vectors[start : start + SLICE_ROWS]
        with np.errstate(over="ignore"):  # looked for in the next line
            rounded = some.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise GalleryError(
                "expected vectors of unit length, got a number beyond fp16, which ends at 65504; "
                "search them with the gallery's own index"
            )
        halves[start : start + SLICE_ROWS] = rounded
        moved = max(moved, longest_of(some - rounded.astype(np.float32)))
        longest = max(longest, longest_of(some))
    return halves, Halving(moved, longest + moved)


def settle(
    query: Query, vectors: Vectors, rows: Ids, estimates: Vectors, error: float, k: int
) -> tuple[Ids, Vectors] | None:
    """Rows and exact scores of candidates, where these are sure to hold the ``k`` best.

    Args:
        query: Of width ``D``.
        vectors: All, ``[N, D]``.
        rows: Candidates, by estimate and best first, ``[n]``.
        estimates: Of the query's direction, ``[n]``.
        error: How far an estimate may be off.
        k: How many are wanted, at most ``n``.

    Returns:
        ``None`` where a row that is no candidate may be among the best.
    """
    scores = query.scores(vectors[rows])
    if len(rows) < len(vectors) and not are_best(query, scores, float(estimates[-1]), error, k):
        return None
    return rows, scores


def are_best(query: Query, scores: Vectors, last: float, error: float, k: int) -> bool:
    """Whether the ``k`` best of some exact scores are the best of all.

    Args:
        query: What is scored.
        scores: Of candidates, ``[n]``.
        last: No vector that is no candidate has a higher estimate.
        error: How far an estimate may be off.
        k: How many are wanted.
    """
    if len(scores) < k:
        return False
    bar = float(np.partition(scores, -k)[-k]) / query.length
    return last + error < bar


class SettledTopK:
    """Exact search by a scan of fp16 vectors.

    The scan gives some more than ``k`` rows, and their exact scores are taken from the vectors.
    The least of the ``k`` best is a bar: where the last estimate, and so that of each row left
    out, stays below it by more than an estimate can be off, the answer is that of
    :class:`~finegrain.runtime.topk.exact.ExactTopK`. Else the scan is asked for four times as
    many, and all vectors are read where it cannot give them.

    Args:
        ids: Ascending, ``[N]``.
        vectors: ``[N, D]``, on the host.
        halving: What the vectors lost in the scan, from :func:`halve`.
        scan: Over the vectors in fp16.
    """

    def __init__(self, ids: Ids, vectors: Vectors, halving: Halving, scan: Scan) -> None:
        self._ids = ids
        self._vectors = vectors
        self._halving = halving
        self._scan = scan

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """See :class:`~finegrain.runtime.topk.exact.TopK`."""
        if not len(self._ids) or k < 1:
            return [[] for _ in queries]
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            hits += self._search(queries[start : start + QUERIES_AT_ONCE], k)
        return hits

    def _search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        k = min(k, len(self._ids))
        found: dict[int, list[Hit]] = {}
        depth = k + SPARE
        while len(found) < len(queries):
            open_ones = [number for number in range(len(queries)) if number not in found]
            depth = min(depth, len(self._ids))
            if depth > self._scan.max_depth:
                found |= {number: self._read_all(queries[number], k) for number in open_ones}
            else:
                found |= self._scanned({n: queries[n] for n in open_ones}, k, depth)
            depth *= DEEPER
        return [found[number] for number in range(len(queries))]

    def _scanned(self, queries: dict[int, Vectors], k: int, depth: int) -> dict[int, list[Hit]]:
        """Hits of those queries that are settled at this depth."""
        wide = [Query(vector.astype(np.float64)) for vector in queries.values()]
        sent = np.stack([query.direction for query in wide]).astype(np.float16)
        rows, estimates = self._scan.best(sent, depth)
        found = {}
        for place, (number, query) in enumerate(zip(queries, wide, strict=True)):
            error = self._halving.error(query, sent[place])
            settled = settle(query, self._vectors, rows[place], estimates[place], error, k)
            if settled is not None:
                found[number] = best(self._ids, *settled, k)
        return found

    def _read_all(self, query: Vectors, k: int) -> list[Hit]:
        scores = exact_scores(query, self._vectors)
        return best(self._ids, np.arange(len(self._ids)), scores, k)
