"""Vectors with one byte per number, so that a scan reads a quarter of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from finegrain.index.estimate import Doubles, Pool, Query, Rows, Vectors, longest_of
from finegrain.runtime.instructions import this_processor

if TYPE_CHECKING:
    from finegrain.index.block import BlockVectors

LEVELS = 256
SCAN_SHARE = 0.25
"""Selecting a larger share of the scanned rows is slower than scanning float32."""

_SLICE_ROWS = 256  # half a megabyte at width 512, which stays in the cache
_SMALLEST_STEP = np.float32(2.0**-100)  # step of a column whose values are all equal

Mask = npt.NDArray[np.bool_]


class Asked(NamedTuple):
    """A query for some rows of a block.

    Attributes:
        query: The query.
        k: Number of rows that it asks for.
        allowed: Mask of the rows that it may return, ``[n]``; None for all.
    """

    query: Query
    k: int
    allowed: Mask | None


class Codes(Protocol):
    """The codes of a block's vectors."""

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> Sequence[Pool | None]:
        """Estimates for each query; None where reading all vectors is faster.

        Args:
            asked: The queries.
            biases: Biases ``[n]``; only codes from :meth:`for_biases` take them.
        """

    def for_biases(self) -> Codes | None:
        """The same codes in a form that takes biases; None if this processor has none."""

    def without(self, rows: Rows) -> Codes | None:
        """Codes without these rows, ascending; later rows move up.

        None if it is better to make codes of the remaining vectors again.
        """


class Grid(NamedTuple):
    """How vectors become codes.

    Column ``d`` spans ``[low_d, high_d]``. With its middle ``m`` and step
    ``s = (high - low) / 255``, a vector ``v`` is stored as ``c``, the numbers nearest to
    ``(v - m) / s`` out of -127.5, -126.5, ..., 127.5. The estimate for the direction ``u`` of a
    query is::

        u·v ≈ u·m + (u∘s)·c

    The exact difference is ``u·r`` with the residual ``r = v - m - s∘c``. By the Cauchy-Schwarz
    inequality and ``|u| = 1``, the error of the estimate is at most::

        max|r|  +  error of the kernel that computes (u∘s)·c  +  Query.rounding(max|v|)

    The last term bounds the rounding of the score. The maxima are over the encoded vectors, and
    hold for any subset of them. For unit vectors of width 512 with normally distributed columns,
    ``max|r|`` is about 0.01, some twenty times the actual errors.

    Attributes:
        middle: ``m``, ``[D]``.
        step: ``s``, ``[D]``.
        longest: Upper bound on ``|v|``.
        residual: Upper bound on ``|r|``.
        largest: Upper bound on ``|c|``.
    """

    middle: Vectors
    step: Vectors
    longest: float
    residual: float
    largest: float

    def weights(self, query: Query) -> Doubles:
        """``u∘s``."""
        return query.direction * self.step

    def offset(self, query: Query) -> float:
        """``u·m``."""
        return float(query.direction @ self.middle)

    def error(self, query: Query, kernel: float, biases: Vectors | None = None) -> float:
        """Error bound of an estimate, given that of the kernel."""
        return self.residual + kernel + query.rounding(self.longest, biases)


class Encoded(NamedTuple):
    """Encoded vectors.

    Attributes:
        grid: How they were encoded.
        levels: Codes as whole numbers from 0 to 255, ``[n, D]``: ``c + 127.5``.
    """

    grid: Grid
    levels: npt.NDArray[np.uint8]


class DamagedCodesError(Exception):
    """Codes of a file are damaged, or were made again while they were read."""


@dataclass(frozen=True, slots=True, eq=False)
class FiledCodes:
    """The codes of some rows of a block of a file.

    Attributes:
        groups: Reads the codes of all rows of the block, one group of rows after the other. The
            array of a group is overwritten by the next one. Raises :class:`DamagedCodesError`.
        rows: The rows within the block, ascending.
    """

    groups: Callable[[], Iterator[Encoded]]
    rows: Rows

    def only(self, rows: Rows) -> FiledCodes:
        return replace(self, rows=self.rows[rows])

    def grid(self) -> Grid | None:
        """How the rows were encoded; None if that is damaged."""
        try:
            return next(self.groups()).grid
        except DamagedCodesError:
            return None

    def read(self, vectors: BlockVectors) -> Encoded:
        """The codes; made again from the vectors of these rows if they are damaged."""
        try:
            parts = [group._replace(levels=group.levels.copy()) for group in self.groups()]
        except DamagedCodesError:
            return _encoded_again(vectors, len(self.rows))
        levels = np.concatenate([part.levels for part in parts])
        if len(self.rows) < len(levels):
            levels = levels[self.rows]
        return Encoded(parts[0].grid, levels)


def _encoded_again(vectors: BlockVectors, count: int) -> Encoded:
    """Codes of rows; those of damaged vectors are zeros."""
    rows, intact = vectors.take()
    if not len(rows):
        intact = np.zeros((1, intact.shape[1]), np.float32)
    grid, levels = encode(intact, longest_of(intact))
    every = np.zeros((count, levels.shape[1]), np.uint8)
    every[rows] = levels[: len(rows)]
    return Encoded(grid, every)


def encode(vectors: Vectors, longest: float) -> Encoded:
    """Encode vectors ``[n, D]``, at least one.

    Args:
        vectors: The vectors.
        longest: Upper bound on their L2 norm.
    """
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    middle = low + (high - low) / 2
    step = np.maximum((high - low) / np.float32(LEVELS - 1), _SMALLEST_STEP)
    levels = np.empty(vectors.shape, np.uint8)
    residual = largest = 0.0
    for start in range(0, len(vectors), _SLICE_ROWS):
        rest = vectors[start : start + _SLICE_ROWS] - middle
        codes = np.floor(rest / step)
        np.clip(codes, -LEVELS / 2, LEVELS / 2 - 1, out=codes)
        levels[start : start + _SLICE_ROWS] = codes + LEVELS / 2
        codes += 0.5
        rest -= step * codes
        residual = max(residual, longest_of(rest))
        largest = max(largest, longest_of(codes))
    # The residuals themselves are rounded, by up to 3 * 2^-24 of the subtracted numbers.
    residual += 2.0**-20 * (longest + float(np.linalg.norm(middle)))
    return Encoded(Grid(middle, step, longest, residual, largest), levels)


@cache
def multiplies_bytes() -> bool:
    """Whether to use products of bytes (:class:`~finegrain.index.byte_codes.ByteCodes`).

    Without AVX-512, FAISS takes about five times as long to decode codes as to read them.
    """
    instructions = this_processor().instructions
    if "AVX2" not in instructions or "AVX-512" in instructions:
        return False
    from finegrain.runtime.byte_matrix import copies_weights  # imports ONNX Runtime

    return copies_weights()


def least_rows() -> int:
    """Smallest block with codes. For fewer rows, scanning float32 is faster than making codes."""
    return 1024 if multiplies_bytes() else 4096


def scannable(encoded: Encoded, vectors_per_row: int = 1) -> Codes:
    """Codes of at least one row in the form that suits this processor."""
    if vectors_per_row > 1:
        from finegrain.index.several_codes import SeveralCodes, split

        return SeveralCodes([scannable(place) for place in split(encoded, vectors_per_row)])
    if multiplies_bytes():
        from finegrain.index.byte_codes import ByteCodes  # imports ONNX Runtime

        return ByteCodes(encoded)
    from finegrain.index.faiss_codes import FaissCodes

    return FaissCodes(encoded)


def scannable_at_once(filed: FiledCodes, vectors: BlockVectors, vectors_per_row: int = 1) -> Codes:
    """Codes of a file in the form that suits this processor, which may be packed later.

    Args:
        filed: The codes of at least one row.
        vectors: The vectors of these rows.
        vectors_per_row: Number of vectors of a row.
    """
    if multiplies_bytes():
        from finegrain.index.late_codes import LateCodes

        return LateCodes(filed, vectors, vectors_per_row)
    return scannable(filed.read(vectors), vectors_per_row)


def coded(vectors: Vectors, longest: float, vectors_per_row: int = 1) -> Codes:
    """Encode rows ``[n, K D]``, at least one, in the form that suits this processor.

    Args:
        vectors: The rows.
        longest: Upper bound on their L2 norm.
        vectors_per_row: Number of vectors of a row, ``K``.
    """
    return scannable(encode(vectors, longest), vectors_per_row)
