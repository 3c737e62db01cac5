"""The vectors of a block: in memory, or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from finegrain.index.estimate import Rows, Vectors

Checksums = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


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
