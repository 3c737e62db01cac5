"""Exact inner-product search over the vectors of a gallery."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import numpy as np

from finegrain.index.biases import Biases
from finegrain.index.block import Block, HeldVectors, Part, StoredBlock, likely
from finegrain.index.codes import SCAN_SHARE
from finegrain.index.estimate import Ids, Pool, Query, Rows, Vectors, kth
from finegrain.index.late_codes import LateCodes, Packing
from finegrain.index.micro_batching import MicroBatcher
from finegrain.runtime.freed_memory import return_freed_memory

__all__ = ["Hit", "Ids", "VectorIndex", "Vectors"]

BLOCK_ROWS = 16_384
"""Rows of a full block: 8 MiB of codes at width 512, read in about 0.3 ms."""

_FEW = 256  # so many rows are read before another thread has begun
_QUERIES_AT_ONCE = 16  # bounds the memory for estimates; a block stays in the cache for all of them


_Map = Callable[[Callable[[int], None], Iterable[int]], Iterator[None]]
"""Calls a function for each number, in several threads."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search.

    Attributes:
        id: Id of the picture.
        score: Inner product with the query.
    """

    id: int
    score: float


if hasattr(os, "register_at_fork"):
    # In a forked process, OpenMP would wait for threads that exist only in the parent.
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))


class _Request(NamedTuple):
    """What one caller searches for."""

    queries: Sequence[Query]
    k: int
    allowed: Ids | None


class _Scanned(NamedTuple):
    """Parts of blocks, and their estimates by part and query."""

    parts: Sequence[Part]
    pools: Sequence[Sequence[Pool]]


class VectorIndex:
    """Exact search over vectors, with one-byte codes in memory to select candidates.

    A search works in three steps:

    1. Scan the codes of each block for more than ``k`` candidates, and compute the exact scores
       of the ``k`` rows with the highest estimates. The lowest of these scores is the bar.
    2. Compute exact scores of all candidates whose estimate plus error reaches the bar. The
       error is bounded (:class:`~finegrain.index.codes.Grid`), so all other candidates are not
       among the best.
    3. If a row that a block left out may reach the bar, read all vectors of that block.

    The result therefore equals that of a full scan, for any data. If vectors differ by less than
    the resolution of a byte, the search only takes longer.

    Rows are stored in immutable blocks. Adding joins small blocks into larger ones, so that each
    row is copied only a few times. Removing copies the blocks that lose rows.

    The codes of adopted blocks are packed for the fastest scan in the background, from the second
    search on, where that takes longer than reading them.

    The vectors of adopted blocks stay in their file, and only those of candidates are read. Memory
    is then one byte per number for the code, and 20 bytes for ids, places and checksums: 532 bytes
    for a row of width 512. Rows that were added without a file are held in memory, with four more
    bytes per number. A vector that does not agree with its checksum is left out, as if its row did
    not exist.

    A row may have a bias, which is added to its inner product. Estimates add it too, so the result
    is as exact as without.

    Any number of searches may run at once, also during one ``add`` or ``remove``; they then see
    all, none or some of its rows. Searches that wait at the same time share one scan of the codes,
    of up to 16 queries (:class:`~finegrain.index.micro_batching.MicroBatcher`). Only one thread at
    a time may add or remove. A scan uses a pool of as many threads as FAISS may use
    (``OMP_NUM_THREADS``, or all cores).

    A row may hold several vectors one after the other. Its score is the highest of these.

    Args:
        dim: Width of the vectors, ``D``.
        biases: Biases of rows, also of those that are added later.
        vectors_per_row: Number of vectors of a row, ``K``. Rows are ``[N, K D]`` then.

    Examples:
        >>> import numpy as np
        >>> index = VectorIndex(2)
        >>> index.add(np.array([1, 2]), np.eye(2, dtype=np.float32))
        >>> index.search(np.array([[0.5, 0.25]], np.float32), k=1)
        [[Hit(id=1, score=0.5)]]
    """

    def __init__(self, dim: int, biases: Biases | None = None, *, vectors_per_row: int = 1) -> None:
        self._dim = dim
        self._vectors_per_row = vectors_per_row
        self._biases = Biases() if biases is None else biases
        self._blocks: tuple[Block, ...] = ()
        self._num_threads = faiss.omp_get_max_threads()
        self._start_threads()
        self._packing = Packing(self._unpacked)
        self._is_packed = True
        self._num_searches = 0

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
        for block in self._blocks:
            rows, vectors = block.vectors.take()
            yield (block.ids if len(rows) == len(block) else block.ids[rows]), vectors

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def memory(self) -> dict[str, int]:
        """Bytes in memory by part; see :class:`~finegrain.index.backend.MeasuredIndex`."""
        sizes: Counter[str] = Counter()
        for block in self._blocks:
            sizes["ids"] += block.ids.nbytes
            if block.biases is not None:
                sizes["biases"] += block.biases.nbytes
            if block.codes is not None:
                sizes["codes"] += block.codes.num_bytes
            is_held = isinstance(block.vectors, HeldVectors)
            sizes["vectors" if is_held else "places"] += block.vectors.num_bytes
        return dict(sizes)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them."""
        blocks = list(self._blocks)
        for start in range(0, len(ids), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            _append(blocks, self._biased(Block.of(ids[part], vectors[part], self._vectors_per_row)))
        self._blocks = tuple(blocks)

    def adopt(self, numbers: Iterable[int], load: Callable[[int], StoredBlock]) -> None:
        """Take over blocks of a file with their codes. Their vectors may stay there.

        Rows of these blocks that the index holds already are replaced.

        Args:
            numbers: Numbers of the blocks, ascending.
            load: Reads a block.
        """
        self._use_threads()

        def build(number: int) -> Block | None:
            block = Block.stored(load(number), self._vectors_per_row)
            return None if block is None else self._biased(block)

        adopted = [block for block in self._threads.map(build, numbers) if block is not None]
        if not adopted:
            return
        first, last = adopted[0].ids[0], adopted[-1].ids[-1]
        before: list[Block] = []
        behind: list[Block] = []  # newer rows than those of the file's blocks
        for block in self._blocks:
            if block.ids[-1] < first:
                before.append(block)
                continue
            for blocks, others in ((before, block.ids >= first), (behind, block.ids <= last)):
                if not others.all():
                    _append(blocks, block.without(np.flatnonzero(others)))
        self._blocks = (*before, *adopted, *behind)
        self._is_packed = False
        return_freed_memory()

    def remove(self, ids: Ids) -> None:
        """Remove the rows with these ids; ids that are not in the index are ignored."""
        unique_ids = np.unique(ids)
        done: list[Block] = []
        waiting = deque(self._blocks)
        while waiting:
            block = waiting.popleft()
            if len(rows := block.rows_of(unique_ids)):
                block = block.without(rows)
            if len(block):
                _append(done, block)
            # Publish after each block, so that old blocks are freed one by one.
            self._blocks = (*done, *waiting)

    @property
    def is_biased(self) -> bool:
        """Whether a row has a bias."""
        return len(self._biases) > 0

    def set_biases(self, ids: Ids, values: Vectors) -> None:
        """See :class:`~finegrain.index.backend.BiasedIndex`."""
        self._biases = self._biases.changed(ids, values)
        self._blocks = tuple(
            self._biased(block) if len(block.rows_of(ids)) else block for block in self._blocks
        )

    def _biased(self, block: Block) -> Block:
        return block.biased(self._biases.of(block.ids))

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """The ``k`` best rows of each query, best first; equal scores by ascending id.

        A score is the inner product plus the bias, summed in float64 and rounded to float32.

        Args:
            queries: Queries ``[Q, D]``.
            k: Number of hits per query; all rows if there are fewer.
            allowed: If set, search only these ids, ascending. If they are few, only their vectors
                are read, so the search is faster.
        """
        self._use_threads()
        self._num_searches += 1
        if not self._is_packed and self._num_searches > 1:
            self._packing.begin()
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            batch = [
                Query(vector.astype(np.float64))
                for vector in queries[start : start + _QUERIES_AT_ONCE]
            ]
            scanned = self._scan(_Request(batch, k, allowed))
            for number, query in enumerate(batch):
                pools = [row[number] for row in scanned.pools]
                settling = _Settling(scanned.parts, pools, query, k, self._threads.map)
                ids, scores = settling.best()
                hits.append(list(map(Hit, ids.tolist(), scores.tolist())))
        return hits

    def close(self) -> None:
        """Stop packing codes; all memory is freed with the object."""
        self._packing.stop()

    def _unpacked(self) -> LateCodes | None:
        """The next codes to pack; None if all are packed."""
        for block in self._blocks:
            if isinstance(block.codes, LateCodes) and not block.codes.is_packed:
                return block.codes
        self._is_packed = True
        return None

    def _use_threads(self) -> None:
        if self._process != os.getpid():  # a forked process does not inherit the threads
            self._start_threads()

    def _start_threads(self) -> None:
        # A scan distributes blocks to these threads, so each must not use OpenMP threads too.
        self._threads = ThreadPoolExecutor(
            self._num_threads, "finegrain-search", faiss.omp_set_num_threads, (1,)
        )
        self._scan = MicroBatcher(
            self._scan_together, lambda request: len(request.queries), _QUERIES_AT_ONCE
        )
        self._process = os.getpid()

    def _scan_together(self, requests: Sequence[_Request]) -> list[_Scanned]:
        """Scan each block once for several requests."""
        blocks = self._blocks
        parts: list[list[Part | None]] = [_parts(blocks, one.allowed) for one in requests]
        pools: list[list[Sequence[Pool]]] = [[()] * len(blocks) for _ in requests]

        def scan(first: int) -> None:
            for number in range(first, len(blocks), self._num_threads):
                wanted = [
                    (index, [(part, query, request.k) for query in request.queries])
                    for index, request in enumerate(requests)
                    if (part := parts[index][number]) is not None
                ]
                if not wanted:
                    continue
                results = iter(likely([one for _, several in wanted for one in several]))
                for index, several in wanted:
                    pools[index][number] = [next(results) for _ in several]

        list(self._threads.map(scan, range(min(self._num_threads, len(blocks)))))
        return [
            _Scanned(
                [part for part in own if part is not None],
                [estimates for part, estimates in zip(own, of, strict=True) if part is not None],
            )
            for own, of in zip(parts, pools, strict=True)
        ]


class _Settling:
    """The ``k`` best rows of one query.

    Args:
        parts: The parts of blocks that are searched.
        pools: Estimates for each of them.
        query: The query.
        k: Number of rows.
        in_threads: Calls a function for each part in several threads.
    """

    def __init__(
        self, parts: Sequence[Part], pools: Sequence[Pool], query: Query, k: int, in_threads: _Map
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


def _append(blocks: list[Block], new: Block) -> None:
    """Append a block; join it with the preceding blocks unless these are much larger.

    Blocks of a file are not joined with blocks in memory.
    """
    while (
        blocks
        and len(blocks[-1]) <= min(2 * len(new), BLOCK_ROWS - len(new))
        and type(blocks[-1].vectors) is type(new.vectors)
    ):
        new = blocks.pop().joined(new)
    if len(new):  # rows that are damaged are left out
        blocks.append(new.coded())


def _parts(blocks: Sequence[Block], allowed: Ids | None) -> list[Part | None]:
    """The allowed part of each block; None if it is empty."""
    if allowed is None:
        return [Part(block) for block in blocks]
    return [Part(block, rows) if len(rows := block.rows_of(allowed)) else None for block in blocks]
