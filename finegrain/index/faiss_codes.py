"""Codes that FAISS scans."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from finegrain.index.codes import LEVELS, SCAN_SHARE, Asked, Codes, Encoded, Mask
from finegrain.index.estimate import Pool, Query, Rows, Vectors

SPARE_ROWS = 64
"""Extra rows that a block returns; the more, the rarer it is that all its vectors are read."""

_LANES = 64  # FAISS is fastest if the width is a multiple of this


class FaissCodes:
    """Codes that FAISS decodes to float32 and multiplies (:class:`~finegrain.index.codes.Grid`).

    The error of the kernel is at most::

        |u∘s| ((D + 4) 2^-23 max|c| + 2^-13 √D)

    which bounds the rounding of sums and of each decoded ``c``. A scan returns the highest
    estimates; the lowest of them bounds those of the rows left out.

    Args:
        encoded: The codes of at least one vector.
    """

    def __init__(self, encoded: Encoded) -> None:
        width = encoded.levels.shape[1]
        self._grid = encoded.grid
        self._width = -(-width // _LANES) * _LANES
        self._index: faiss.Index = faiss.IndexScalarQuantizer(
            self._width,
            faiss.ScalarQuantizer.QT_8bit_uniform,
            faiss.METRIC_INNER_PRODUCT,
        )
        # FAISS decodes each of the 256 levels to its middle: -127.5, -126.5 and so on.
        self._index.train(self._padded(np.array([[-LEVELS / 2], [LEVELS / 2 - 1]])))
        levels = encoded.levels
        if width < self._width:
            # Queries are padded with zeros, so these columns take no part in a product.
            levels = np.pad(levels, ((0, 0), (0, self._width - width)))
        self._index.add_sa_codes(np.ascontiguousarray(levels))

    def _padded(self, rows: npt.NDArray[np.floating]) -> Vectors:
        padded = np.zeros((len(rows), self._width), np.float32)
        padded[:, : rows.shape[1]] = rows
        return padded

    @property
    def num_bytes(self) -> int:
        """See :class:`~finegrain.index.codes.Codes`."""
        num_bytes: int = self._index.ntotal * self._width
        return num_bytes

    def for_biases(self) -> Codes | None:
        """See :class:`~finegrain.index.codes.Codes`."""
        from finegrain.index.byte_codes import ByteCodes  # imports ONNX Runtime
        from finegrain.runtime.byte_matrix import copies_weights

        if not copies_weights():
            return None
        index: Any = self._index  # its type stubs lack the codes
        levels = faiss.vector_to_array(index.codes).reshape(-1, self._width)
        return ByteCodes(Encoded(self._grid, levels[:, : len(self._grid.middle)]))

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> list[Pool | None]:
        """See :class:`~finegrain.index.codes.Codes`."""
        assert biases is None
        return [self._best(*one) for one in asked]

    def _best(self, query: Query, k: int, allowed: Mask | None) -> Pool | None:
        share = 1.0 if allowed is None else float(allowed.mean())
        depth = int((4 * k + SPARE_ROWS) / share)
        if depth > SCAN_SHARE * self._index.ntotal:
            return None
        scaled = self._grid.weights(query)
        sums, rows = self._index.search(self._padded(scaled[None]), depth)
        estimates = sums[0].astype(np.float64) + self._grid.offset(query)
        rounding = (self._width + 4) * 2.0**-23 * self._grid.largest + 2.0**-13 * self._width**0.5
        error = self._grid.error(query, float(np.linalg.norm(scaled)) * rounding)
        # FAISS could filter rows itself, but its scan would take more than twice as long.
        shown = slice(None) if allowed is None else allowed[rows[0]]
        return Pool(rows[0][shown], estimates[shown], error, rest=float(estimates[-1]))

    def without(self, rows: Rows) -> FaissCodes:
        """See :class:`~finegrain.index.codes.Codes`."""
        fewer = copy.copy(self)
        fewer._index = faiss.clone_index(self._index)
        fewer._index.remove_ids(faiss.IDSelectorBatch(rows))
        return fewer
