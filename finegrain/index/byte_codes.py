"""Codes that are multiplied with bytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from finegrain.index.codes import Asked, Encoded
from finegrain.index.estimate import Doubles, Pool, Rows, Vectors
from finegrain.runtime.byte_matrix import LARGEST, ByteMatrix, Bytes, Sums

MOST_REMOVED = 1 / 8
"""Above this share of removed rows, which a scan still reads, codes are made again."""

_TURNED_ROWS = 64  # a part that stays in the cache while rows become columns
_MOST_IN_GROUP = 64  # rows of which only the highest product is looked at to find the k-th highest
_GROUPS_PER_HIT = 8  # the more groups, the closer their k-th highest product is to the k-th of all
_LOWEST = np.iinfo(np.int32).min  # instead of the product of a row that must not be returned


class ByteCodes:
    """Codes that are multiplied with queries of 7 bits (:class:`~finegrain.index.codes.Grid`).

    Codes are stored as the bytes ``b = c - 1/2``. The weights ``w = u∘s`` of a query become
    integers ``q``, the nearest to ``w / t`` with ``t = max|w| / 63``, so that with the rest
    ``e = w - t q``::

        w·c = t q·c + e·c = t (q·b + Σq / 2) + e·c

    ``q·b`` is an exact sum of integers. By the Cauchy-Schwarz inequality, the error of the kernel
    is at most::

        |e| max|c|  +  (D + 16) 2^-50 |w| max|c|

    The second term bounds all rounding in float64. For unit vectors of width 512 with normally
    distributed columns, the first is about 0.015.

    A scan computes all products, and returns the rows whose estimates are at most two errors below
    the ``k``-th highest of the block. The other rows are not among the ``k`` best: each of these
    ``k`` rows scores at least its estimate minus the error, and a row below scores at most its
    estimate plus the error, which is less. So a scan leaves out no row that may be needed.

    The ``k``-th highest product is bounded from below by the ``k``-th highest of the maxima of
    groups of rows, since each of ``k`` groups has a row with its maximum. Biases are added to the
    products, in the unit of these.

    Args:
        encoded: The codes of at least one vector.
    """

    def __init__(self, encoded: Encoded) -> None:
        def fill(weights: Bytes) -> None:
            for start in range(0, rows, _TURNED_ROWS):
                levels = encoded.levels[start : start + _TURNED_ROWS]
                # 0 to 255 become -128 to 127.
                weights[:, start : start + len(levels)] = (levels ^ 128).view(np.int8).T

        rows, width = encoded.levels.shape
        self._grid = encoded.grid
        self._matrix = ByteMatrix((width, rows), fill)
        self._kept = np.arange(rows)
        self._removed: Rows = np.empty(0, np.int64)

    @property
    def num_bytes(self) -> int:
        """See :class:`~finegrain.index.codes.Codes`."""
        return self._matrix.num_bytes + self._kept.nbytes + self._removed.nbytes

    def for_biases(self) -> ByteCodes:
        """See :class:`~finegrain.index.codes.Codes`."""
        return self

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> list[Pool]:
        """See :class:`~finegrain.index.codes.Codes`."""
        weights = np.stack([self._grid.weights(one.query) for one in asked])
        units = np.abs(weights).max(axis=1) / LARGEST
        units[units == 0] = 1.0
        queries = np.rint(weights / units[:, None])
        rests = np.linalg.norm(weights - units[:, None] * queries, axis=1)
        rounding = (weights.shape[1] + 16) * 2.0**-50 * np.linalg.norm(weights, axis=1)
        kernel = (rests + rounding) * self._grid.largest
        errors = [
            self._grid.error(one.query, float(error), biases)
            for one, error in zip(asked, kernel, strict=True)
        ]
        products = self._products(asked, queries.astype(np.int8))
        totals: Sums | Doubles = products
        if biases is not None:
            lengths = np.array([one.query.length for one in asked])
            totals = self._biased(products, biases, lengths * units)
        bars = self._kth(totals, [one.k for one in asked]) - np.floor(
            2 * np.array(errors) / units + 2
        )
        # Rows that are removed, or not allowed, stay below every bar.
        if biases is None:
            bars = np.maximum(bars, _LOWEST + 1).astype(np.int32)
        else:
            bars = np.maximum(bars, np.finfo(np.float64).min)
        places = np.flatnonzero(totals >= bars[:, None])
        number, columns = np.divmod(places, products.shape[1])
        ends = np.searchsorted(number, np.arange(1, len(asked)))
        sums = totals.ravel()[places] + queries.sum(axis=1)[number] / 2
        offsets = [self._grid.offset(one.query) for one in asked]
        parts = zip(np.split(columns, ends), np.split(sums, ends), strict=True)
        return [
            Pool(kept - np.searchsorted(self._removed, kept), unit * own + offset, error, -np.inf)
            for (kept, own), unit, offset, error in zip(parts, units, offsets, errors, strict=True)
        ]

    def _products(self, asked: Sequence[Asked], queries: Bytes) -> Sums:
        """Products ``[Q, n]`` with all bytes; the lowest number for rows not to be returned."""
        products = self._matrix.products(queries)
        if not products.flags.writeable:
            products = products.copy()
        products[:, self._removed] = _LOWEST
        for row, one in zip(products, asked, strict=True):
            if one.allowed is None:
                continue
            hidden = ~one.allowed
            # A mask takes half as long as positions, which are needed after a removal.
            row[self._kept[hidden] if len(self._removed) else hidden] = _LOWEST
        return products

    def _biased(self, products: Sums, biases: Vectors, units: Doubles) -> Doubles:
        """Products ``[Q, n]`` plus biases, in the units ``[Q]``; minus infinity for hidden rows."""
        placed = np.zeros(products.shape[1])
        placed[self._kept] = biases
        totals: Doubles = products + placed / units[:, None]
        totals[products == _LOWEST] = -np.inf
        return totals

    def _kth(self, products: Sums | Doubles, ks: Sequence[int]) -> Doubles:
        """Lower bounds of the ``k``-th highest product of each query."""
        columns = products.shape[1]
        size = min(max(columns // (_GROUPS_PER_HIT * max(ks)), 1), _MOST_IN_GROUP)
        groups = columns // size
        # Rows of a group are far apart, since neighbours are often similar.
        maxima = products[:, : size * groups].reshape(-1, size, groups).max(axis=1)
        maxima.sort(axis=1)
        return np.array(
            [row[-k] if k <= groups else -np.inf for row, k in zip(maxima, ks, strict=True)],
            np.float64,
        )

    def without(self, rows: Rows) -> ByteCodes | None:
        """See :class:`~finegrain.index.codes.Codes`.

        The bytes of removed rows stay in memory until an eighth of the rows is removed.
        """
        removed = np.sort(np.concatenate([self._removed, self._kept[rows]]))
        if len(removed) > MOST_REMOVED * (len(self._removed) + len(self._kept)):
            return None
        fewer = copy.copy(self)
        fewer._kept, fewer._removed = np.delete(self._kept, rows), removed
        return fewer
