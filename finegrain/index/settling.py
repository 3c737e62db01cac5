"""Exact scores of the rows that estimates cannot exclude."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from finegrain.index.block import Part
from finegrain.index.codes import SCAN_SHARE
from finegrain.index.estimate import Ids, Pool, Query, Rows, Vectors, kth

_FEW = 256  # so many rows are read before another thread has begun

Map = Callable[[Callable[[int], None], Iterable[int]], Iterator[None]]
"""Calls a function for each number, in several threads."""


class Settling:
    """The ``k`` best rows of one query.

    Args:
        parts: The parts of blocks that are searched.
        pools: Estimates for each of them.
        query: The query.
        k: Number of rows.
        in_threads: Calls a function for each part in several threads.
    """

    def __init__(
        self, parts: Sequence[Part], pools: Sequence[Pool], query: Query, k: int, in_threads: Map
    ) -> None:
        self._parts = parts
        self._pools = pools
        self._query = query
        self._k = k
        self._in_threads = in_threads
        self._scored: list[list[tuple[Ids, Vectors]]] = [[] for _ in parts]

    def best(self) -> tuple[Ids, Vectors]:
        """Ids and exact scores, best first; equal scores by ascending id."""
        pools = self._pools
        first = kth((pool.scores for pool in pools), self._k)
        self._score([pool.between(first) for pool in pools])
        # The lowest of k exact scores is a lower bound on the k-th best score.
        bar = self._bar()
        others = [pool.between(bar - pool.error, first) for pool in pools]
        unsettled = set()
        for number, part in enumerate(self._parts):
            if len(others[number]) > SCAN_SHARE * len(part):
                unsettled.add(number)
                others[number] = others[number][:0]
        self._score(others)
        bar = self._bar()
        unsettled |= {number for number, pool in enumerate(pools) if pool.may_lack(bar)}
        list(self._in_threads(lambda number: self._score_all(number, bar), sorted(unsettled)))
        scored = [one for own in self._scored for one in own]
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in scored)])
        scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in scored)])
        order = np.lexsort((ids, -scores))[: self._k]
        return ids[order], scores[order]

    def _bar(self) -> float:
        """The ``k``-th highest exact score so far, for the direction of the query."""
        return kth((scores for own in self._scored for _, scores in own), self._k) / (
            self._query.length
        )

    def _score(self, rows: Sequence[Rows]) -> None:
        """Compute the exact scores of some rows of each part."""

        def score(number: int) -> None:
            self._scored[number].append(self._parts[number].scored(self._query, rows[number]))

        sizes = [len(own) for own in rows]
        numbers = np.flatnonzero(sizes).tolist()
        list((self._in_threads if sum(sizes) > _FEW else map)(score, numbers))

    def _score_all(self, number: int, bar: float) -> None:
        """Read all vectors of a part, and compute exact scores of those that may reach a bar."""
        part = self._parts[number]
        pool = part.all(self._query)
        self._scored[number] = [part.scored(self._query, pool.between(bar - pool.error))]
