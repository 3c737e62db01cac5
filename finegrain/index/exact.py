"""Exact inner-product search over the vectors of a gallery."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from finegrain.index.block import Block, Part
from finegrain.index.estimate import Ids, Pool, Query, Vectors

__all__ = ["Hit", "Ids", "VectorIndex", "Vectors"]

BLOCK_ROWS = 16_384
"""Rows of a full block: 8 MiB of codes at width 512, read in about 0.3 ms."""

SPARE_ROWS = 64
"""Rows that a block gives beyond a few times ``k``; the more, the less often it is read whole."""

_QUERIES_AT_ONCE = 16  # bounds the memory for estimates; a block stays in cache for all of them


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found, and its inner product with the query."""

    id: int
    score: float


if hasattr(os, "register_at_fork"):
    # OpenMP would wait for threads that a forked process does not have.
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))


class VectorIndex:
    """All vectors in memory, searched by one-byte codes and settled by the vectors.

    A search scans the codes of each block for some more than ``k`` rows and takes the exact
    scores of the ``k`` first by estimate. The least of these is a bar. A row whose estimate
    plus error (:class:`~finegrain.index.estimate.Codes` says how large that can be) stays
    below it is not among the best; all other rows get exact scores, and where the last row
    that a block gave reaches the bar by its estimate plus error, all vectors of the block are
    read. The answer is thus that of reading everything, for any data; data below the
    resolution of a byte only takes longer.

    Rows are in blocks that never change. Adding joins small blocks into larger ones, so that
    a row is copied a few times at most whatever the size of the index; removing copies the
    blocks that lose rows.

    Memory is five bytes a number, 2,560 bytes for a row of 512: four for the vector, one for
    its code.

    Searches take no lock: any number may run at once, also beside one ``add`` or ``remove``,
    which they then see done, undone or, of many ids, in part. The one who adds and removes
    must be one at a time. A search uses as many threads as FAISS is allowed (``OMP_NUM_THREADS``,
    or all cores), which belong to the index.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._blocks: tuple[Block, ...] = ()
        self._num_threads = faiss.omp_get_max_threads()
        self._threads = self._pool()
        self._process = os.getpid()

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        return np.concatenate([np.empty(0, np.int64), *(block.ids for block in self._blocks)])

    @property
    def last_id(self) -> int:
        """The highest id in the index, or 0."""
        blocks = self._blocks
        return int(blocks[-1].ids[-1]) if blocks else 0

    def chunks(self) -> Iterator[tuple[Ids, Vectors]]:
        """All rows, ascending: ids ``[n]`` and their vectors ``[n, D]``."""
        return ((block.ids, block.vectors) for block in self._blocks)

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them."""
        blocks = list(self._blocks)
        for start in range(0, len(ids), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            _append(blocks, Block.of(ids[part], vectors[part]))
        self._blocks = tuple(blocks)

    def remove(self, ids: Ids) -> None:
        """Take out those of the ids that are in the index."""
        gone = np.unique(ids)
        done: list[Block] = []
        waiting = deque(self._blocks)
        while waiting:
            block = waiting.popleft()
            if len(rows := block.rows_of(gone)):
                block = block.without(rows)
            if len(block):
                _append(done, block)
            # Letting go of each old block at once needs memory for one more block, not for all.
            self._blocks = (*done, *waiting)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """The ``k`` best of each query, best first, equal scores by ascending id.

        A score is the sum in float64, rounded to float32.

        Args:
            queries: ``[Q, D]``.
            k: How many; all there are when it is larger.
            allowed: Search only these ids, ascending. Where they are few, only their vectors
                are read, so the cost falls with their number.
        """
        self._own_threads()
        parts = _parts(self._blocks, allowed)
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = [
                Query(vector.astype(np.float64))
                for vector in queries[start : start + _QUERIES_AT_ONCE]
            ]
            pools = self._pools(parts, some, depth=4 * k + SPARE_ROWS)
            for number, query in enumerate(some):
                hits.append(self._best(parts, [row[number] for row in pools], query, k))
        return hits

    def _pool(self) -> ThreadPoolExecutor:
        # A search shares out its blocks; OpenMP's own threads within each would be too many.
        return ThreadPoolExecutor(
            self._num_threads, "finegrain-search", faiss.omp_set_num_threads, (1,)
        )

    def _own_threads(self) -> None:
        """Make threads anew in a forked process, which has none of its parent's."""
        if self._process != os.getpid():
            self._threads = self._pool()
            self._process = os.getpid()

    def _pools(
        self, parts: Sequence[Part], queries: Sequence[Query], depth: int
    ) -> list[list[Pool]]:
        """Estimates by part and query."""
        pools: list[list[Pool]] = [[] for _ in parts]

        def scan(first: int) -> None:
            for number in range(first, len(parts), self._num_threads):
                pools[number] = [parts[number].likely(query, depth) for query in queries]

        list(self._threads.map(scan, range(min(self._num_threads, len(parts)))))
        return pools

    def _best(
        self, parts: Sequence[Part], pools: Sequence[Pool], query: Query, k: int
    ) -> list[Hit]:
        if not parts:
            return []
        bar = _kth((pool.scores for pool in pools), k)
        first = _reaching(parts, pools, query, [bar] * len(pools)).values()
        # The k first by estimate have k exact scores: nothing below the least of them is wanted.
        bar = _kth((scores for _, scores in first), k) / query.length
        scored = _reaching(parts, pools, query, [bar - pool.error for pool in pools])
        bar = _kth((scores for _, scores in scored.values()), k) / query.length

        def read(number: int) -> None:
            pool = parts[number].all(query)
            scored[number] = parts[number].scored(query, pool.above(bar - pool.error))

        lacking = (number for number, pool in enumerate(pools) if pool.may_lack(bar))
        list(self._threads.map(read, lacking))
        ids, scores = map(np.concatenate, zip(*scored.values(), strict=True))
        order = np.lexsort((ids, -scores))[:k]
        return list(map(Hit, ids[order].tolist(), scores[order].tolist()))


def _append(blocks: list[Block], new: Block) -> None:
    """Put rows at the end, as part of the blocks before where these are not much larger."""
    while blocks and len(blocks[-1]) <= min(2 * len(new), BLOCK_ROWS - len(new)):
        new = blocks.pop().joined(new)
    blocks.append(new.coded())


def _reaching(
    parts: Sequence[Part], pools: Sequence[Pool], query: Query, bars: Sequence[float]
) -> dict[int, tuple[Ids, Vectors]]:
    """Ids and exact scores of the rows whose estimates reach a bar, of the parts that have some."""
    return {
        number: parts[number].scored(query, rows)
        for number, (pool, bar) in enumerate(zip(pools, bars, strict=True))
        if len(rows := pool.above(bar))
    }


def _parts(blocks: Sequence[Block], allowed: Ids | None) -> list[Part]:
    if allowed is None:
        return [Part(block) for block in blocks]
    chosen = ((block, block.rows_of(allowed)) for block in blocks)
    return [Part(block, rows) for block, rows in chosen if len(rows)]


def _kth(scores: Iterable[npt.NDArray[np.floating]], k: int) -> float:
    """The ``k``-th highest of all, or ``-inf`` when there are fewer."""
    every = np.concatenate([np.empty(0, np.float32), *scores])
    return float(np.partition(every, -k)[-k]) if len(every) >= k else -np.inf
