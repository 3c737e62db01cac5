"""A run of rows of the gallery, and the part of it that a filter allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.index.estimate import Codes, Ids, Pool, Query, Rows, Vectors, longest_of

CODED_ROWS = 4096
"""Fewer rows than these are read in float32 in less time than it takes to make codes."""

GATHER_SHARE = 0.15
"""Below this share of allowed rows it is quicker to read their vectors than all codes
(measured at width 512 on an AMD EPYC of the Zen 4 generation)."""

_SCAN_SHARE = 0.25  # keeping more than this of what is scanned takes longer than float32


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows under ascending ids; never changed, so that any thread may read it.

    Attributes:
        ids: ``[n]``, ascending.
        vectors: ``[n, D]``, contiguous.
        longest: No vector is longer.
        codes: None as long as there are few rows.
    """

    ids: Ids
    vectors: Vectors
    longest: float
    codes: Codes | None = None

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors) -> Block:
        """A block without codes, of its own copy of the rows."""
        return cls(ids.astype(np.int64), np.array(vectors, np.float32), longest_of(vectors))

    def __len__(self) -> int:
        return len(self.ids)

    def joined(self, other: Block) -> Block:
        """These rows and then the others, without codes."""
        return Block(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.vectors, other.vectors]),
            max(self.longest, other.longest),
        )

    def coded(self) -> Block:
        """The same rows with codes, where these pay."""
        if self.codes is not None or len(self) < CODED_ROWS:
            return self
        return Block(self.ids, self.vectors, self.longest, Codes(self.vectors, self.longest))

    def without(self, rows: Rows) -> Block:
        """A copy that lacks these rows."""
        codes = None
        if self.codes is not None and len(rows) < len(self):
            codes = self.codes.without(rows)
        return Block(
            np.delete(self.ids, rows), np.delete(self.vectors, rows, axis=0), self.longest, codes
        )

    def rows_of(self, ids: Ids) -> Rows:
        """Rows of those of the ids, ascending, that are here."""
        first, last = self.ids[0], self.ids[-1]
        start, stop = np.searchsorted(ids, [first, last + 1])
        inside = ids[start:stop]
        if last - first + 1 == len(self):  # no gaps, as in most blocks
            rows: Rows = inside - first
        else:
            places = np.searchsorted(self.ids, inside)
            rows = places[self.ids[places] == inside]
        return rows


class Part:
    """The rows of a block that a search looks at.

    Args:
        block: At least one row.
        rows: Ascending; None for all.
    """

    def __init__(self, block: Block, rows: Rows | None = None) -> None:
        self._block = block
        self._rows = rows if rows is None or len(rows) < len(block) else None
        self._allowed: npt.NDArray[np.bool_] | None = None
        if self._rows is not None:
            self._allowed = np.zeros(len(block), np.bool_)
            self._allowed[self._rows] = True

    def __len__(self) -> int:
        return len(self._block) if self._rows is None else len(self._rows)

    def likely(self, query: Query, depth: int) -> Pool:
        """Estimates for about ``depth`` of the best rows, or for all where that is no slower."""
        share = len(self) / len(self._block)
        deep = int(depth / share)
        codes = self._block.codes
        if codes is None or share < GATHER_SHARE or deep > _SCAN_SHARE * len(self._block):
            return self.all(query)
        pool = codes.best(query, deep)
        if self._allowed is None:
            return pool
        # FAISS can skip rows itself, but that more than doubles the time of its scan.
        kept = self._allowed[pool.rows]
        return Pool(pool.rows[kept], pool.scores[kept], pool.error, pool.rest)

    def all(self, query: Query) -> Pool:
        """Estimates for all rows, from the vectors themselves."""
        block = self._block
        rows = np.arange(len(block)) if self._rows is None else self._rows
        vectors = block.vectors if self._rows is None else block.vectors[rows]
        # einsum stays on this thread, where a product would wake all threads of BLAS.
        scores = np.einsum("nd,d->n", vectors, query.direction.astype(np.float32))
        return Pool(rows, scores.astype(np.float64), query.rounding(block.longest), rest=-np.inf)

    def scored(self, query: Query, rows: Rows) -> tuple[Ids, Vectors]:
        """Ids and exact scores of some of the block's rows."""
        return self._block.ids[rows], query.scores(self._block.vectors[rows])
