"""Fast estimates of scores, with proven error bounds."""

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

_LANES = 64  # FAISS is fastest if the width is a multiple of this
_LEVELS = 256
_UNDERFLOW = 2.0**-50  # bounds the error of a norm due to underflow of squares
_SLICE_ROWS = 256  # half a megabyte at width 512, which stays in the cache
_SMALLEST_STEP = np.float32(2.0**-100)  # step of a column whose values are all equal


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One query. Estimates are computed for its direction, which has length 1.

    Attributes:
        vector: The query ``[D]``.
        length: Its L2 norm, or 1 if all its numbers are zero.
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
        """Inner products with ``[n, D]``: sums in float64, rounded once to float32.

        Each row is summed in the same fixed order, so that equal rows have equal scores wherever
        they are. A matrix product by BLAS does not guarantee that.
        """
        products: Doubles = np.einsum("nd,d->n", vectors.astype(np.float64), self.vector)
        return products.astype(np.float32)

    def rounding(self, longest: float) -> float:
        """Error bound of a float32 inner product relative to :meth:`scores`.

        It holds for vectors of length up to ``longest``. The error of a sum of ``D`` products in
        any order is at most ``D u / (1 - D u)`` times the product of the two lengths, with
        ``u = 2^-24``. Twice ``(D + 4) u`` also covers the rounding of the direction and of the
        score. The last term is the absolute rounding error of tiny scores.
        """
        relative = (len(self.vector) + 4) * 2.0**-23
        return relative * longest + 2.0**-149 / self.length


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Estimates for the rows that may be among the best.

    Attributes:
        rows: Rows ``[n]``, in any order.
        scores: Estimates for the query's direction, ``[n]``.
        error: Upper bound on the distance of an estimate from ``Query.scores / Query.length``.
        rest: Upper bound on the estimates of rows left out; ``-inf`` if none is left out.
    """

    rows: Rows
    scores: Doubles
    error: float
    rest: float

    def above(self, bar: float) -> Rows:
        """Rows whose estimate reaches ``bar``."""
        return self.rows[self.scores >= bar]

    def may_lack(self, bar: float) -> bool:
        """Whether a row that was left out may reach ``bar``."""
        return self.rest > -np.inf and self.rest + self.error >= bar


class Codes:
    """Vectors with one byte per number, so that a scan reads a quarter of the memory.

    Column ``d`` spans ``[low_d, high_d]``. With its middle ``m`` and step
    ``s = (high - low) / 255``, a vector ``v`` is stored as ``c``, the numbers nearest to
    ``(v - m) / s`` out of -127.5, -126.5, ..., 127.5. The estimate for the direction ``u`` of a
    query is::

        u·v ≈ u·m + (u∘s)·c

    The exact difference is ``u·r`` with the residual ``r = v - m - s∘c``. By the Cauchy-Schwarz
    inequality and ``|u| = 1``, the error of the estimate is at most::

        max|r|  +  |u∘s| ((D + 4) 2^-23 max|c| + 2^-13 √D)  +  Query.rounding(max|v|)

    The second term bounds the rounding by FAISS, of sums and of each decoded ``c``; the last term
    bounds the rounding of the score. The maxima are over the encoded vectors, and hold for any
    subset of them. For unit vectors of width 512 with normally distributed columns, the bound is
    about 0.01, some twenty times the actual errors.

    Args:
        vectors: Vectors ``[n, D]``, at least one.
        longest: Upper bound on their L2 norm.
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
        # FAISS decodes each of the 256 levels to its middle: -127.5, -126.5 and so on.
        self._index.train(self._padded(np.array([[-_LEVELS / 2], [_LEVELS / 2 - 1]])))
        self._residual = self._largest_code = 0.0
        for start in range(0, len(vectors), _SLICE_ROWS):
            self._add(vectors[start : start + _SLICE_ROWS])
        # The residuals themselves are rounded, by up to 3 * 2^-24 of the subtracted numbers.
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
        """The ``depth`` highest estimates, best first; there are at least ``depth`` rows."""
        scaled = query.direction * self._step
        sums, rows = self._index.search(self._padded(scaled[None]), depth)
        estimates = sums[0].astype(np.float64) + query.direction @ self._middle
        rounding = (self._width + 4) * 2.0**-23 * self._largest_code + 2.0**-13 * self._width**0.5
        error = self._residual + float(np.linalg.norm(scaled)) * rounding
        error += query.rounding(self._longest)
        return Pool(rows[0], estimates, error, rest=float(estimates[-1]))

    def without(self, rows: Rows) -> Codes:
        """A copy without these rows; later rows move up."""
        remaining = copy.copy(self)
        remaining._index = faiss.clone_index(self._index)
        remaining._index.remove_ids(faiss.IDSelectorBatch(rows))
        return remaining


def longest_of(vectors: Vectors) -> float:
    """Upper bound on the L2 norms of ``[n, D]``, including the rounding error of float32."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    relative: float = 1 + vectors.shape[1] * 2.0**-23
    return float(np.sqrt(squares.max())) * relative + _UNDERFLOW
