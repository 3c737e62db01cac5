"""A copy of an index on a GPU that follows it, and an exact search by both.

The index on the host knows which rows exist and computes every score that is returned. The GPU
only estimates scores, to choose candidates. A row that was removed, or that a filter leaves out,
is skipped on the host, so what the GPU holds need not change at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finegrain.index.estimate import Ids, Query, Vectors
from finegrain.index.exact import Hit, VectorIndex
from finegrain.index.gpu.halves import Halves, Halving, halve

SPARE = 64
"""Rows that are estimated beyond ``k``; the more, the less often a search goes deeper."""
DEEPER = 4
"""Factor by which a search goes deeper when its candidates prove too few."""
QUERIES_AT_ONCE = 16
"""Bounds the memory for estimates: 64 MB over a million rows."""
MOST_REMOVED = 1 / 8
"""Above this share of removed rows, which a search looks past, vectors are copied anew."""

Mask = npt.NDArray[np.bool_]
Chunks = Sequence[tuple[Ids, Vectors]]


class Scan(Protocol):
    """Estimates the scores of vectors that it holds in fp16, and returns the highest.

    Attributes:
        max_depth: Most rows that it can return for a query.
        capacity: Most rows that it can hold.
        coarseness: How far an estimate may be off beyond what :meth:`best` says, relative to the
            longest vector.
    """

    max_depth: int
    capacity: int
    coarseness: float

    def append(self, halves: Halves) -> None:
        """Add rows ``[n, D]`` behind those that are there; later searches include them."""

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """Rows and estimates, best first, both ``[Q, depth]``; there are as many rows.

        An estimate is the inner product of ``queries`` ``[Q, D]`` and a row, both in fp16,
        summed in float32 in any order.
        """

    def close(self) -> None:
        """Free the memory."""


class Mirror:
    """The vectors of an index in a scan: which row is which picture, and which is one no more.

    One thread at a time.

    Args:
        index: Exact, on the host.
        scan: Empty. It is the mirror's to close.
    """

    def __init__(self, index: VectorIndex, scan: Scan) -> None:
        self.scan = scan
        self._index = index
        self._chunks: Chunks = ()
        self._last_ids = np.empty(0, np.int64)
        self._ids = np.empty(0, np.int64)
        self._there: Mask = np.empty(0, np.bool_)
        self._halving = Halving(moved=0.0, longest=0.0)

    def follow(self, index: VectorIndex) -> bool:
        """Take over what was added and removed, or say that it takes another mirror.

        That is so where it is another index, there is no room for what was added, or too much
        was removed. After an error the mirror is no more to be used.

        Raises:
            GalleryError: A number is beyond fp16.
        """
        if index is not self._index:
            return False
        chunks = list(index.chunks())
        # Chunks never change, so those of before hold what they held.
        if len(chunks) == len(self._chunks) and all(
            now is before for (now, _), (before, _) in zip(chunks, self._chunks, strict=True)
        ):
            return True
        ids = np.concatenate([np.empty(0, np.int64), *(some for some, _ in chunks)])
        last = int(self._ids[-1]) if len(self._ids) else 0
        new = ids[np.searchsorted(ids, last, side="right") :]
        there = np.isin(np.concatenate([self._ids, new]), ids, assume_unique=True)
        num_removed = len(there) - int(there.sum())
        if len(there) > self.scan.capacity or num_removed > MOST_REMOVED * len(there):
            return False
        for some, vectors in chunks:
            if len(added := vectors[np.searchsorted(some, last, side="right") :]):
                halves, halving = halve(added)
                self.scan.append(halves)
                self._halving = self._halving.joined(halving)
        self._ids, self._there = np.concatenate([self._ids, new]), there
        self._chunks = chunks
        self._last_ids = np.array([some[-1] for some, _ in chunks], np.int64)
        return True

    def shown(self, allowed: Ids | None) -> Mask:
        """Which rows are pictures that are there and, of a filter, among the allowed ids."""
        if allowed is None:
            return self._there
        return self._there & np.isin(self._ids, allowed, assume_unique=True)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """As :meth:`VectorIndex.search <finegrain.index.exact.VectorIndex.search>`, hit for hit.

        Where the scan cannot go deep enough to be sure, that one is asked.
        """
        shown = self.shown(allowed)
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            hits += self._search(queries[start : start + QUERIES_AT_ONCE], k, allowed, shown)
        return hits

    def settled(
        self, query: Query, rows: Ids, estimates: Vectors, error: float, k: int, shown: Mask
    ) -> list[Hit] | None:
        """The ``k`` best of the shown rows, where candidates are sure to hold them.

        Args:
            query: Of width ``D``.
            rows: Candidates, shown or not, by estimate and best first, ``[n]``. Rows that were
                not appended yet may be among them.
            estimates: Of the query's direction, ``[n]``.
            error: How far an estimate may be off, beyond the scan's coarseness.
            k: How many are wanted.
            shown: From :meth:`shown`.
        """
        known = rows[rows < len(self._ids)]
        ids = np.sort(self._ids[known[shown[known]]])
        scores = query.scores(self._vectors(ids))
        error += self.scan.coarseness * self._halving.longest
        if len(known) < len(self._ids) and not _are_best(
            query, scores, float(estimates[-1]), error, k
        ):
            return None
        order = np.lexsort((ids, -scores))[:k]
        return list(map(Hit, ids[order].tolist(), scores[order].tolist()))

    def error(self, query: Query, sent: npt.NDArray[np.floating]) -> float:
        """How far an estimate is off, given what was sent of a query's direction."""
        return self._halving.error(query, sent)

    def _search(
        self, queries: Vectors, k: int, allowed: Ids | None, shown: Mask
    ) -> list[list[Hit]]:
        deepest = min(self.scan.max_depth, len(self._ids))
        num_shown = int(shown.sum())
        found: dict[int, list[Hit]] = {}
        if 0 < min(k, num_shown) <= deepest:
            # As if what is passed over were spread evenly.
            share = num_shown / len(self._ids)
            depth = min(int((min(k, num_shown) + SPARE) / share), deepest)
            found = self._scanned(dict(enumerate(queries)), k, shown, depth)
            while len(found) < len(queries) and depth < deepest:
                depth = min(DEEPER * depth, deepest)
                left = {n: query for n, query in enumerate(queries) if n not in found}
                found |= self._scanned(left, k, shown, depth)
        unsure = [number for number in range(len(queries)) if number not in found]
        read = self._index.search(queries[unsure], k, allowed)
        found |= zip(unsure, read, strict=True)
        return [found[number] for number in range(len(queries))]

    def _scanned(
        self, queries: dict[int, Vectors], k: int, shown: Mask, depth: int
    ) -> dict[int, list[Hit]]:
        """Hits of those queries that are settled at this depth."""
        wide = [Query(vector.astype(np.float64)) for vector in queries.values()]
        sent = np.stack([query.direction for query in wide]).astype(np.float16)
        rows, estimates = self.scan.best(sent, depth)
        found = {}
        for place, (number, query) in enumerate(zip(queries, wide, strict=True)):
            error = self.error(query, sent[place])
            hits = self.settled(query, rows[place], estimates[place], error, k, shown)
            if hits is not None:
                found[number] = hits
        return found

    def _vectors(self, ids: Ids) -> Vectors:
        """Of ascending ids that are there, ``[n, D]``."""
        ends = np.searchsorted(ids, self._last_ids, side="right").tolist()
        parts = [
            vectors[np.searchsorted(some, ids[start:end])]
            for (some, vectors), start, end in zip(self._chunks, [0, *ends], ends, strict=False)
            if start < end
        ]
        width = self._chunks[0][1].shape[1] if self._chunks else 0
        return np.concatenate([np.empty((0, width), np.float32), *parts])


def _are_best(query: Query, scores: Vectors, last: float, error: float, k: int) -> bool:
    """Whether the ``k`` best of some exact scores are the best of all.

    Args:
        query: What is scored.
        scores: Exact scores of the candidates, ``[n]``.
        last: No vector outside the candidates has a higher estimate.
        error: How far an estimate may be off.
        k: How many are wanted.
    """
    if len(scores) < k:
        return False
    bar = float(np.partition(scores, -k)[-k]) / query.length
    return last + error < bar
