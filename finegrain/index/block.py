"""A block of rows of the index, and the part of a block that a filter allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.index import codes as coding
from finegrain.index.codes import Asked, Codes
from finegrain.index.estimate import Ids, Pool, Query, Rows, Vectors, longest_of

GATHER_SHARE = 0.15
"""Below this share of allowed rows, reading their vectors is faster than scanning all codes
(measured at width 512 on an AMD EPYC of the Zen 4 generation)."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows under ascending ids. A block is immutable, so that any thread may read it.

    Attributes:
        ids: Ids ``[n]``, ascending.
        vectors: Vectors ``[n, D]``, contiguous.
        longest: Upper bound on the L2 norm of the vectors.
        codes: One-byte codes of the vectors; None for a small block.
    """

    ids: Ids
    vectors: Vectors
    longest: float
    codes: Codes | None = None

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors) -> Block:
        """A block without codes, with its own copy of the rows."""
        return cls(ids.astype(np.int64), np.array(vectors, np.float32), longest_of(vectors))

    def __len__(self) -> int:
        return len(self.ids)

    def joined(self, other: Block) -> Block:
        """A block of these rows followed by those of ``other``, without codes."""
        return Block(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.vectors, other.vectors]),
            max(self.longest, other.longest),
        )

    def coded(self) -> Block:
        """The same rows with codes, if the block is large enough."""
        if self.codes is not None or len(self) < coding.least_rows():
            return self
        return Block(self.ids, self.vectors, self.longest, coding.coded(self.vectors, self.longest))

    def without(self, rows: Rows) -> Block:
        """A copy without these rows."""
        vectors = np.delete(self.vectors, rows, axis=0)
        remaining = None
        if self.codes is not None and len(vectors):
            remaining = self.codes.without(rows, vectors)
        return Block(np.delete(self.ids, rows), vectors, self.longest, remaining)

    def rows_of(self, ids: Ids) -> Rows:
        """Rows of the ids (ascending) that are in this block."""
        first, last = self.ids[0], self.ids[-1]
        start, stop = np.searchsorted(ids, [first, last + 1])
        inside = ids[start:stop]
        if last - first + 1 == len(self):  # no gaps, the common case
            rows: Rows = inside - first
        else:
            places = np.searchsorted(self.ids, inside)
            rows = places[self.ids[places] == inside]
        return rows


class Part:
    """The rows of a block that a search may return.

    Args:
        block: A block of at least one row.
        rows: Allowed rows, ascending; None for all.
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

    @property
    def codes(self) -> Codes | None:
        """The codes of all rows of the block."""
        return self._block.codes

    def asked(self, query: Query, k: int) -> Asked | None:
        """What to ask the codes of the block for; None where reading the vectors is faster."""
        if self._block.codes is None or len(self) < GATHER_SHARE * len(self._block):
            return None
        return Asked(query, k, self._allowed)

    def all(self, query: Query) -> Pool:
        """Estimates for all rows, computed from the vectors in float32."""
        block = self._block
        rows = np.arange(len(block)) if self._rows is None else self._rows
        vectors = block.vectors if self._rows is None else block.vectors[rows]
        # einsum uses this thread only; a matrix product would start all threads of BLAS.
        scores = np.einsum("nd,d->n", vectors, query.direction.astype(np.float32))
        return Pool(rows, scores.astype(np.float64), query.rounding(block.longest), rest=-np.inf)

    def scored(self, query: Query, rows: Rows) -> tuple[Ids, Vectors]:
        """Ids and exact scores of some of the block's rows."""
        return self._block.ids[rows], query.scores(self._block.vectors[rows])


def likely(wanted: Sequence[tuple[Part, Query, int]]) -> list[Pool]:
    """Estimates for the rows that may be among the ``k`` best of each part.

    Args:
        wanted: Parts of one block, each with a query and ``k``. Their codes are scanned once.
    """
    asked = [part.asked(query, k) for part, query, k in wanted]
    scanned = [one for one in asked if one is not None]
    block_codes = wanted[0][0].codes if scanned else None
    pools = iter(block_codes.best(scanned) if block_codes else [])
    return [
        (next(pools) if one is not None else None) or part.all(query)
        for one, (part, query, _) in zip(asked, wanted, strict=True)
    ]
