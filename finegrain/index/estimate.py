"""Scores that are quick and nearly right, with a proof of how nearly."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_LANES = 64  # FAISS is quickest when the width is a multiple of a register
_LEVELS = 256
_UNDERFLOW = 2.0**-50  # more than the squares of tiny numbers lose
_SLICE_ROWS = 256  # half a megabyte at width 512: stays in cache between the steps
_SMALLEST_STEP = np.float32(2.0**-100)  # of columns with one value


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One query and its direction; all estimates are made for the direction, of length 1.

    Attributes:
        vector: ``[D]``.
        length: L2 norm, and 1 for a query of nothing but zeros.
        direction: ``vector / length``, ``[D]``.
    """

    vector: Doubles
    length: float = field(init=False)
    direction: Doubles = field(init=False)

    def __post_init__(self) -> None:
        length = float(np.linalg.norm(self.vector)) or 1.0
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "direction", self.vector / length)

    def scores(self, vectors: Vectors) -> Vectors:
        """Inner products with ``[n, D]``: sums of float64, rounded once to float32.

        Rows are summed one by one in a fixed order, so that equal rows score equal wherever
        they stand; a product by BLAS does not promise that.
        """
        products: Doubles = np.einsum("nd,d->n", vectors.astype(np.float64), self.vector)
        return products.astype(np.float32)

    def rounding(self, longest: float) -> float:
        """How far a float32 sum over vectors up to ``longest`` is from :meth:`scores`.

        A sum of ``D`` products in any order is off by at most ``D u / (1 - D u)`` times the
        two lengths, with ``u = 2^-24``. Twice ``(D + 4) u`` also covers the rounding of the
        direction and of the score; the last term is the absolute rounding of tiny scores.
        """
        relative = (len(self.vector) + 4) * 2.0**-23
        return relative * longest + 2.0**-149 / self.length


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Estimates for the rows that may be among the best.

    Attributes:
        rows: ``[n]``, in no promised order.
        scores: Estimates for the query's direction, ``[n]``.
        error: No estimate is further than this from ``Query.scores / Query.length``.
        rest: No row left out has a higher estimate; ``-inf`` when none is left out.
    """

    rows: Rows
    scores: Doubles
    error: float
    rest: float

    def above(self, bar: float) -> Rows:
        """Rows whose estimate reaches ``bar``."""
        return self.rows[self.scores >= bar]

    def may_lack(self, bar: float) -> bool:
        """Whether a row left out may reach ``bar``."""
        return self.rest > -np.inf and self.rest + self.error >= bar


class Codes:
    """Vectors at one byte a number, for a scan that reads a quarter of the memory.

    Column ``d`` spans ``[low_d, high_d]``. With its middle ``m`` and step
    ``s = (high - low) / 255``, a vector ``v`` is kept as ``c``, the numbers nearest to
    ``(v - m) / s`` out of -127.5, -126.5, ..., 127.5. The direction ``u`` of a query scores about::

        u·v ≈ u·m + (u∘s)·c

    The exact difference is ``u·r`` of the residual ``r = v - m - s∘c``. By Cauchy-Schwarz and
    ``|u| = 1`` the estimate is off by at most::

        max|r|  +  |u∘s| ((D + 4) 2^-23 max|c| + 2^-13 √D)  +  Query.rounding(max|v|)

    where the middle is FAISS's rounding, of sums and of each ``c`` as it is decoded, and the
    last term that of the score itself. The maxima are over the vectors at hand, and hold for
    any part of them. For unit vectors of width 512 whose columns look normal the sum is about
    0.01, some twenty times what the errors turn out to be.

    Args:
        vectors: ``[n, D]``, at least one.
        longest: No vector is longer.
    """

    def __init__(self, vectors: Vectors, longest: float) -> None:
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        step = (high - low) / np.float32(_LEVELS - 1)
        self._middle = low + (high - low) / 2
        self._step = np.maximum(step, _SMALLEST_STEP)
        self._longest = longest
        self._width = -(-vectors.shape[1] // _LANES) * _LANES
        self._index: faiss.Index = faiss.IndexScalarQuantizer(
            self._width,
            faiss.ScalarQuantizer.QT_8bit_uniform,
            faiss.METRIC_INNER_PRODUCT,
        )
        # FAISS decodes the middle of each of 256 levels: -127.5 and so on.
        self._index.train(self._padded(np.array([[-_LEVELS / 2], [_LEVELS / 2 - 1]])))
        self._residual = self._largest_code = 0.0
        for start in range(0, len(vectors), _SLICE_ROWS):
            self._add(vectors[start : start + _SLICE_ROWS])
        # The residuals above were themselves rounded, by up to 3 * 2^-24 of what was subtracted.
        self._residual += 2.0**-20 * (longest + float(np.linalg.norm(self._middle)))

    def _add(self, vectors: Vectors) -> None:
        rest = vectors - self._middle
        codes = np.floor(rest / self._step)
        np.clip(codes, -_LEVELS / 2, _LEVELS / 2 - 1, out=codes)
        codes += 0.5
        rest -= self._step * codes
        self._index.add(self._padded(codes))
        self._residual = max(self._residual, longest_of(rest))
        self._largest_code = max(self._largest_code, longest_of(codes))

    def _padded(self, rows: npt.NDArray[np.floating]) -> Vectors:
        padded = np.zeros((len(rows), self._width), np.float32)
        padded[:, : rows.shape[1]] = rows
        return padded

    def best(self, query: Query, depth: int) -> Pool:
        """The ``depth`` highest estimates, best first; there must be as many rows."""
        scaled = query.direction * self._step
        sums, rows = self._index.search(self._padded(scaled[None]), depth)
        estimates = sums[0].astype(np.float64) + query.direction @ self._middle
        rounding = (self._width + 4) * 2.0**-23 * self._largest_code + 2.0**-13 * self._width**0.5
        error = self._residual + float(np.linalg.norm(scaled)) * rounding
        error += query.rounding(self._longest)
        return Pool(rows[0], estimates, error, rest=float(estimates[-1]))

    def without(self, rows: Rows) -> Codes:
        """A copy that lacks these rows; those after them move up."""
        less = copy.copy(self)
        less._index = faiss.clone_index(self._index)
        less._index.remove_ids(faiss.IDSelectorBatch(rows))
        return less


def longest_of(vectors: Vectors) -> float:
    """The largest L2 norm among ``[n, D]``, rounded up by more than float32 can be off."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    relative: float = 1 + vectors.shape[1] * 2.0**-23
    return float(np.sqrt(squares.max())) * relative + _UNDERFLOW
