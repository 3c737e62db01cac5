"""Codes that are scanned as they are read from the file, and packed for a faster scan later.

Packing the codes of a block for products of bytes takes several times as long as reading them. An
index that is opened for one search does without. It does not keep the codes in memory either: new
memory costs more than reading them again.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from finegrain.index.codes import (
    LEVELS,
    Asked,
    Codes,
    DamagedCodesError,
    FiledCodes,
    Grid,
    scannable,
)
from finegrain.index.estimate import Doubles, Pool, Rows, Vectors, kth
from finegrain.runtime.forks import pause_at_fork

if TYPE_CHECKING:
    from finegrain.index.block import BlockVectors

_MIDDLE = (LEVELS - 1) / 2


class LateCodes:
    """Codes that are read and decoded at each scan until they are packed.

    A level ``l = c + 127.5`` is multiplied in float32 (:class:`~finegrain.index.codes.Grid`)::

        w·c = w·l - 127.5 Σw    with    |l| <= |c| + 127.5 √D

    The error of the kernel is at most ``(D + 4) 2^-23 |w| (max|c| + 127.5 √D)``, which bounds the
    rounding of ``w`` and of the sum.

    Args:
        filed: The codes of at least one row.
        vectors: The vectors of these rows, for the case that the codes are damaged.
        vectors_per_row: Number of vectors of a row; the highest estimate of these counts.
    """

    def __init__(self, filed: FiledCodes, vectors: BlockVectors, vectors_per_row: int = 1) -> None:
        self._filed = filed
        self._vectors = vectors
        self._vectors_per_row = vectors_per_row
        self._packed: Codes | None = None  # is set once, so any thread may read it

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    def pack(self) -> None:
        """Pack the codes; scans may run meanwhile."""
        if self._packed is None:
            self._packed = scannable(self._filed.read(self._vectors), self._vectors_per_row)

    @property
    def num_bytes(self) -> int:
        """See :class:`~finegrain.index.codes.Codes`."""
        return self._filed.rows.nbytes if self._packed is None else self._packed.num_bytes

    def for_biases(self) -> LateCodes:
        """See :class:`~finegrain.index.codes.Codes`."""
        return self

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> Sequence[Pool | None]:
        """See :class:`~finegrain.index.codes.Codes`."""
        if self._packed is not None:
            return self._packed.best(asked, biases)
        try:
            grid, sums = self._scan(asked)
        except DamagedCodesError:
            return [None] * len(asked)
        return [self._pool(grid, own, one, biases) for own, one in zip(sums, asked, strict=True)]

    def _scan(self, asked: Sequence[Asked]) -> tuple[Grid, Vectors]:
        """The grid, and the products ``w·l`` of each query with each vector, ``[Q, K, n]``."""
        places = range(self._vectors_per_row)
        products: list[Vectors] = []
        for grid, levels in self._filed.groups():
            if not products:
                weights = [self._weights(grid, one).astype(np.float32) for one in asked]
            decoded = levels.astype(np.float32).reshape(len(levels), len(places), -1)
            own = np.empty((len(asked), len(places), len(levels)), np.float32)
            for number, weight in enumerate(weights):
                for place in places:
                    # Unlike a product by BLAS, einsum uses this thread only.
                    np.einsum("nd,d->n", decoded[:, place], weight[place], out=own[number, place])
            products.append(own)
        return grid, np.concatenate(products, axis=2)

    def _weights(self, grid: Grid, one: Asked) -> Doubles:
        """``u∘s`` for each vector of a row, ``[K, D]``."""
        return one.query.direction * grid.step.reshape(self._vectors_per_row, -1)

    def _pool(self, grid: Grid, sums: Vectors, one: Asked, biases: Vectors | None) -> Pool:
        weights = self._weights(grid, one)
        middles = grid.middle.reshape(self._vectors_per_row, -1) @ one.query.direction
        width = weights.shape[1]
        longest = grid.largest + _MIDDLE * width**0.5
        kernel = (width + 4) * 2.0**-23 * float(np.linalg.norm(weights, axis=1).max()) * longest
        error = grid.error(one.query, kernel, biases)
        offsets = middles - _MIDDLE * weights.sum(axis=1)
        estimates = (sums.astype(np.float64) + offsets[:, None]).max(axis=0)[self._filed.rows]
        if biases is not None:
            estimates += biases.astype(np.float64) / one.query.length
        if one.allowed is not None:
            estimates[~one.allowed] = -np.inf
        bar = max(kth([estimates], one.k) - 2 * error, np.finfo(np.float64).min)
        rows = np.flatnonzero(estimates >= bar)
        return Pool(rows, estimates[rows], error, rest=-np.inf)

    def without(self, rows: Rows) -> Codes | None:
        """See :class:`~finegrain.index.codes.Codes`."""
        if self._packed is not None:
            return self._packed.without(rows)
        kept = np.delete(np.arange(len(self._filed.rows)), rows)
        return LateCodes(self._filed.only(kept), self._vectors.only(kept), self._vectors_per_row)


class Packing:
    """A thread that packs codes until there are none left.

    Args:
        upcoming: A method that returns the next codes to pack, or None. The thread holds only a
            weak reference to its object.
    """

    def __init__(self, upcoming: Callable[[], LateCodes | None]) -> None:
        self._upcoming = weakref.WeakMethod(upcoming)
        self._lock = threading.Lock()  # is held while codes are packed
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        # The libraries that pack are unloaded at the end of the process.
        weakref.finalize(upcoming.__self__, self.stop)  # type: ignore[attr-defined]
        pause_at_fork(self)

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()

    def begin(self) -> None:
        """Start the thread if it is not running."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="finegrain-packing", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait until it has packed its present codes."""
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            upcoming = self._upcoming()
            codes = None if upcoming is None else upcoming()
            del upcoming
            if codes is None:
                return
            with self._lock:
                codes.pack()
