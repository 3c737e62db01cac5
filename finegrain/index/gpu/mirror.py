"""A copy of an index on a GPU, and an exact search that uses both.

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
"""Extra candidates beyond ``k``; the more, the rarer it is that a search goes deeper."""
DEEPER = 4
"""Factor by which the depth grows if the candidates are too few."""
QUERIES_AT_ONCE = 16
"""Bounds the memory for estimates: 64 MB over a million rows."""
MOST_REMOVED = 1 / 8
"""Above this share of removed rows, which a search must skip, the copy is made again."""

Mask = npt.NDArray[np.bool_]
Chunks = Sequence[tuple[Ids, Vectors]]


class Scan(Protocol):
    """Estimates the scores of vectors in fp16, and returns the highest.

    Attributes:
        max_depth: Most rows that it can return per query.
        capacity: Most rows that it can hold.
        coarseness: Additional error of an estimate beyond that stated in :meth:`best`, relative
            to the longest vector.
    """

    max_depth: int
    capacity: int
    coarseness: float

    def append(self, halves: Halves) -> None:
        """Append rows ``[n, D]``; later searches include them."""

    def best(self, queries: Halves, depth: int) -> tuple[Ids, Vectors]:
        """Rows and estimates, best first, both ``[Q, depth]``.

        ``depth`` is at most the number of rows. An estimate is the inner product of a query of
        ``[Q, D]`` and a row, both in fp16, summed in float32 in any order.
        """

    def close(self) -> None:
        """Free the memory."""


class Mirror:
    """Copies the vectors of an index to a scan, and maps rows of the scan to pictures.

    Only one thread at a time may use it.

    Args:
        index: The exact index on the host.
        scan: An empty scan, which the mirror owns.
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
        """Copy additions and removals of the index.

        After an error the mirror must not be used any more.

        Returns:
            False if a new mirror is needed, because ``index`` is another index, the new rows
            exceed the capacity, or too many rows were removed.

        Raises:
            GalleryError: A number is outside the range of fp16.
        """
        if index is not self._index:
            return False
        chunks = list(index.chunks())
        # Chunks are immutable, so comparing identities is sufficient.
        if len(chunks) == len(self._chunks) and all(
            now is before for (now, _), (before, _) in zip(chunks, self._chunks, strict=True)
        ):
            return True
        ids = np.concatenate([np.empty(0, np.int64), *(chunk_ids for chunk_ids, _ in chunks)])
        last = int(self._ids[-1]) if len(self._ids) else 0
        new = ids[np.searchsorted(ids, last, side="right") :]
        there = np.isin(np.concatenate([self._ids, new]), ids, assume_unique=True)
        num_removed = len(there) - int(there.sum())
        if len(there) > self.scan.capacity or num_removed > MOST_REMOVED * len(there):
            return False
        for chunk_ids, vectors in chunks:
            if len(added := vectors[np.searchsorted(chunk_ids, last, side="right") :]):
                halves, halving = halve(added)
                self.scan.append(halves)
                self._halving = self._halving.joined(halving)
        self._ids, self._there = np.concatenate([self._ids, new]), there
        self._chunks = chunks
        self._last_ids = np.array([chunk_ids[-1] for chunk_ids, _ in chunks], np.int64)
        return True

    def shown(self, allowed: Ids | None) -> Mask:
        """Mask of the rows whose pictures still exist and are among the allowed ids."""
        if allowed is None:
            return self._there
        return self._there & np.isin(self._ids, allowed, assume_unique=True)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """Same hits as :meth:`VectorIndex.search <finegrain.index.exact.VectorIndex.search>`.

        If the scan cannot go deep enough for a certain result, the index on the host is used.
        """
        shown = self.shown(allowed)
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            hits += self._search(queries[start : start + QUERIES_AT_ONCE], k, allowed, shown)
        return hits

    def settled(
        self, query: Query, rows: Ids, estimates: Vectors, error: float, k: int, shown: Mask
    ) -> list[Hit] | None:
        """The ``k`` best of the shown rows, or None if the candidates may lack one of them.

        Args:
            query: The query, of width ``D``.
            rows: Candidate rows ``[n]`` by estimate, best first, shown or not. They may include
                rows that are not appended yet.
            estimates: Estimates ``[n]`` for the query's direction.
            error: Error bound of the estimates, without the scan's coarseness.
            k: Number of hits.
            shown: Mask from :meth:`shown`.
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
        """Error bound of an estimate, for the rounded direction that was sent to the GPU."""
        return self._halving.error(query, sent)

    def _search(
        self, queries: Vectors, k: int, allowed: Ids | None, shown: Mask
    ) -> list[list[Hit]]:
        deepest = min(self.scan.max_depth, len(self._ids))
        num_shown = int(shown.sum())
        hits_of: dict[int, list[Hit]] = {}
        if 0 < min(k, num_shown) <= deepest:
            # This assumes that the skipped rows are spread evenly.
            share = num_shown / len(self._ids)
            depth = min(int((min(k, num_shown) + SPARE) / share), deepest)
            hits_of = self._scanned(dict(enumerate(queries)), k, shown, depth)
            while len(hits_of) < len(queries) and depth < deepest:
                depth = min(DEEPER * depth, deepest)
                pending = {n: query for n, query in enumerate(queries) if n not in hits_of}
                hits_of |= self._scanned(pending, k, shown, depth)
        uncertain = [number for number in range(len(queries)) if number not in hits_of]
        exact_hits = self._index.search(queries[uncertain], k, allowed)
        hits_of |= zip(uncertain, exact_hits, strict=True)
        return [hits_of[number] for number in range(len(queries))]

    def _scanned(
        self, queries: dict[int, Vectors], k: int, shown: Mask, depth: int
    ) -> dict[int, list[Hit]]:
        """Hits of the queries whose result is certain at this depth, by number."""
        wide = [Query(vector.astype(np.float64)) for vector in queries.values()]
        sent = np.stack([query.direction for query in wide]).astype(np.float16)
        rows, estimates = self.scan.best(sent, depth)
        hits_of = {}
        for place, (number, query) in enumerate(zip(queries, wide, strict=True)):
            error = self.error(query, sent[place])
            hits = self.settled(query, rows[place], estimates[place], error, k, shown)
            if hits is not None:
                hits_of[number] = hits
        return hits_of

    def _vectors(self, ids: Ids) -> Vectors:
        """Vectors ``[n, D]`` of ascending ids, all in the index."""
        ends = np.searchsorted(ids, self._last_ids, side="right").tolist()
        parts = [
            vectors[np.searchsorted(chunk_ids, ids[start:end])]
            for (chunk_ids, vectors), start, end in zip(
                self._chunks, [0, *ends], ends, strict=False
            )
            if start < end
        ]
        width = self._chunks[0][1].shape[1] if self._chunks else 0
        return np.concatenate([np.empty((0, width), np.float32), *parts])


def _are_best(query: Query, scores: Vectors, last: float, error: float, k: int) -> bool:
    """Whether the ``k`` best candidates are certainly the ``k`` best of all rows.

    Args:
        query: The query.
        scores: Exact scores of the candidates, ``[n]``.
        last: Upper bound on the estimates of all other rows.
        error: Error bound of the estimates.
        k: Number of hits.
    """
    if len(scores) < k:
        return False
    bar = float(np.partition(scores, -k)[-k]) / query.length
    return last + error < bar
