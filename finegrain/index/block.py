"""A block of rows of the index: ids, vectors in memory or in a file, codes and biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from finegrain.index import codes as coding
from finegrain.index.codes import Asked, Codes, FiledCodes, Mask
from finegrain.index.estimate import Ids, Pool, Query, Rows, Vectors, highest_products, longest_of

Checksums = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class HeldVectors:
    """Vectors in memory.

    Attributes:
        array: The vectors ``[n, D]``, contiguous.
    """

    GATHER_SHARE: ClassVar[float] = 0.15
    """Below this share of allowed rows, reading their vectors is faster than scanning all codes
    (measured at width 512 on an AMD EPYC of the Zen 4 generation)."""

    array: Vectors

    @property
    def num_bytes(self) -> int:
        return self.array.nbytes

    def take(self, rows: Rows | None = None) -> tuple[Rows, Vectors]:
        """Rows and their vectors; all rows by default."""
        if rows is None:
            return np.arange(len(self.array)), self.array
        return rows, self.array[rows]

    def only(self, rows: Rows) -> HeldVectors:
        return HeldVectors(self.array[rows])


class VectorSource(Protocol):
    """A file of vectors."""

    def read(self, slots: Rows, checksums: Checksums) -> tuple[Mask, Vectors]:
        """Read the vectors of ascending slots.

        Args:
            slots: Places of the vectors, ``[n]``.
            checksums: Their CRC-32, ``[n]``.

        Returns:
            A mask of the vectors that agree with their checksum, and these. The others are damaged,
            or were deleted meanwhile.
        """


@dataclass(frozen=True, slots=True, eq=False)
class FiledVectors:
    """Vectors in a file, which are read and checked when they are needed.

    Attributes:
        source: The file.
        slots: Places of the vectors, ascending, ``[n]``.
        checksums: Their CRC-32, ``[n]``.
    """

    GATHER_SHARE: ClassVar[float] = 0.03
    """Reading a vector of a file takes about two microseconds (AMD EPYC, Zen 3)."""

    source: VectorSource
    slots: Rows
    checksums: Checksums

    @property
    def num_bytes(self) -> int:
        return self.slots.nbytes + self.checksums.nbytes

    def take(self, rows: Rows | None = None) -> tuple[Rows, Vectors]:
        """The intact ones of some rows, ascending, and their vectors; all rows by default."""
        rows = np.arange(len(self.slots)) if rows is None else np.sort(rows)
        intact, vectors = self.source.read(self.slots[rows], self.checksums[rows])
        return rows[intact], vectors

    def only(self, rows: Rows) -> FiledVectors:
        return FiledVectors(self.source, self.slots[rows], self.checksums[rows])


BlockVectors = HeldVectors | FiledVectors


def joined(one: BlockVectors, other: BlockVectors) -> BlockVectors:
    """The vectors of two blocks that are both in memory, or in one file."""
    if isinstance(one, HeldVectors) and isinstance(other, HeldVectors):
        return HeldVectors(np.concatenate([one.array, other.array]))
    assert isinstance(one, FiledVectors)
    assert isinstance(other, FiledVectors)
    return FiledVectors(
        one.source,
        np.concatenate([one.slots, other.slots]),
        np.concatenate([one.checksums, other.checksums]),
    )


class StoredBlock(NamedTuple):
    """A block of a file, with the codes that the file holds.

    Attributes:
        ids: Ids ``[n]``, ascending.
        vectors: Vectors of these ids, in the file or in memory.
        codes: Their codes.
    """

    ids: Ids
    vectors: BlockVectors
    codes: FiledCodes

    def only(self, kept: Mask) -> StoredBlock:
        """The block with the rows of a mask."""
        if kept.all():
            return self
        rows = np.flatnonzero(kept)
        return StoredBlock(self.ids[rows], self.vectors.only(rows), self.codes.only(rows))

    def in_memory(self) -> StoredBlock:
        """The block with its intact vectors in memory."""
        rows, vectors = self.vectors.take()
        if len(rows) == len(self.ids):
            return self._replace(vectors=HeldVectors(vectors))
        return StoredBlock(self.ids[rows], HeldVectors(vectors), self.codes.only(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows under ascending ids. A block is immutable, so that any thread may read it.

    Attributes:
        ids: Ids ``[n]``, ascending.
        vectors: Their vectors.
        longest: Upper bound on the L2 norm of the vectors.
        codes: One-byte codes of the vectors; None for a small block.
        biases: Their biases; None if all are zero.
        vectors_per_row: Number of vectors of a row, which holds them one after the other.
    """

    ids: Ids
    vectors: BlockVectors
    longest: float
    codes: Codes | None = None
    biases: Vectors | None = None
    vectors_per_row: int = 1

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors, vectors_per_row: int = 1) -> Block:
        """A block without codes and biases, with its own copy of the rows."""
        held = HeldVectors(np.array(vectors, np.float32))
        return cls(ids.astype(np.int64), held, longest_of(vectors), vectors_per_row=vectors_per_row)

    @classmethod
    def stored(cls, stored: StoredBlock, vectors_per_row: int = 1) -> Block | None:
        """A block of a file, without biases; None if it has no intact rows."""
        if not len(stored.ids):
            return None
        if (grid := stored.codes.grid()) is not None:
            codes = None
            if len(stored.ids) >= coding.least_rows():
                codes = coding.scannable_at_once(stored.codes, stored.vectors, vectors_per_row)
            return cls(
                stored.ids, stored.vectors, grid.longest, codes, vectors_per_row=vectors_per_row
            )
        rows, vectors = stored.vectors.take()
        if not len(rows):
            return None
        ids = stored.ids[rows]
        return cls(
            ids, stored.vectors.only(rows), longest_of(vectors), vectors_per_row=vectors_per_row
        ).coded()

    def __len__(self) -> int:
        return len(self.ids)

    def biased(self, biases: Vectors | None) -> Block:
        """The same rows with other biases, ``[n]``."""
        codes = self.codes
        if codes is not None and biases is not None:
            codes = codes.for_biases()
        return replace(self, codes=codes, biases=biases)

    def joined(self, other: Block) -> Block:
        """A block of these rows followed by those of ``other``, without codes."""
        biases = None
        if self.biases is not None or other.biases is not None:
            biases = np.concatenate([_or_zeros(self), _or_zeros(other)])
        return replace(
            self,
            ids=np.concatenate([self.ids, other.ids]),
            vectors=joined(self.vectors, other.vectors),
            longest=max(self.longest, other.longest),
            codes=None,
            biases=biases,
        )

    def coded(self) -> Block:
        """The same rows with codes, if the block is large enough; without damaged rows."""
        if self.codes is not None or len(self) < coding.least_rows():
            return self
        rows, vectors = self.vectors.take()
        if not len(rows):
            return self
        codes = coding.coded(vectors, self.longest, self.vectors_per_row)
        block = self if len(rows) == len(self) else self._only(rows)
        return replace(block, codes=codes, biases=None).biased(block.biases)

    def without(self, rows: Rows) -> Block:
        """A copy without these rows, and without codes if they must be made again."""
        remaining = np.delete(np.arange(len(self)), rows)
        codes = None
        if self.codes is not None and len(remaining):
            codes = self.codes.without(rows)
        return replace(self._only(remaining), codes=codes)

    def _only(self, rows: Rows) -> Block:
        """Some rows, ascending, without codes."""
        biases = None if self.biases is None else self.biases[rows]
        return replace(
            self, ids=self.ids[rows], vectors=self.vectors.only(rows), codes=None, biases=biases
        )

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

    @property
    def biases(self) -> Vectors | None:
        """The biases of all rows of the block."""
        return self._block.biases

    def asked(self, query: Query, k: int) -> Asked | None:
        """What to ask the codes of the block for; None where reading the vectors is faster."""
        block = self._block
        if block.codes is None or len(self) < block.vectors.GATHER_SHARE * len(block):
            return None
        return Asked(query, k, self._allowed)

    def all(self, query: Query) -> Pool:
        """Estimates for all rows, computed from the vectors in float32."""
        rows, vectors = self._block.vectors.take(self._rows)
        products = highest_products(vectors, query.direction.astype(np.float32))
        scores = products.astype(np.float64)
        biases = self._block.biases
        if biases is not None:
            scores += biases[rows].astype(np.float64) / query.length
        error = query.rounding(self._block.longest, biases)
        return Pool(rows, scores, error, rest=-np.inf)

    def scored(self, query: Query, rows: Rows) -> tuple[Ids, Vectors]:
        """Ids and exact scores of some of the block's rows, if they are intact."""
        intact, vectors = self._block.vectors.take(rows)
        biases = self.biases
        return self._block.ids[intact], query.scores(
            vectors, None if biases is None else biases[intact]
        )


def likely(wanted: Sequence[tuple[Part, Query, int]]) -> list[Pool]:
    """Estimates for the rows that may be among the ``k`` best of each part.

    Args:
        wanted: Parts of one block, each with a query and ``k``. Their codes are scanned once.
    """
    asked = [part.asked(query, k) for part, query, k in wanted]
    scanned = [one for one in asked if one is not None]
    block_codes = wanted[0][0].codes if scanned else None
    pools = iter(block_codes.best(scanned, wanted[0][0].biases) if block_codes else [])
    return [
        (next(pools) if one is not None else None) or part.all(query)
        for one, (part, query, _) in zip(asked, wanted, strict=True)
    ]


def _or_zeros(block: Block) -> Vectors:
    """The biases of a block, which may be zero."""
    return np.zeros(len(block), np.float32) if block.biases is None else block.biases
