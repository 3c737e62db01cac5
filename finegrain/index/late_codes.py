"""Codes that are scanned as they are read, and packed for a faster scan later.

Packing the codes of a block for products of bytes takes several times as long as reading them. An
index that is opened for one search does without.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from finegrain.index.byte_codes import ByteCodes
from finegrain.index.codes import LEVELS, Asked, Encoded
from finegrain.index.estimate import Pool, Rows, Vectors, kth
from finegrain.runtime.forks import pause_at_fork

_SLICE_ROWS = 256  # half a megabyte in float32 at width 512, which stays in the cache
_MIDDLE = (LEVELS - 1) / 2


class LateCodes:
    """Codes that are decoded at each scan until they are packed.

    A level ``l = c + 127.5`` is multiplied in float32 (:class:`~finegrain.index.codes.Grid`)::

        w·c = w·l - 127.5 Σw    with    |l| <= |c| + 127.5 √D

    The error of the kernel is at most ``(D + 4) 2^-23 |w| (max|c| + 127.5 √D)``, which bounds the
    rounding of ``w`` and of the sum.

    Args:
        encoded: The codes of at least one vector.
    """

    def __init__(self, encoded: Encoded) -> None:
        self._codes: Encoded | ByteCodes = encoded  # is replaced at once, so any thread may read

    @property
    def is_packed(self) -> bool:
        return isinstance(self._codes, ByteCodes)

    def pack(self) -> None:
        """Pack the codes; scans may run meanwhile."""
        codes = self._codes
        if isinstance(codes, Encoded):
            self._codes = ByteCodes(codes)

    @property
    def num_bytes(self) -> int:
        """See :class:`~finegrain.index.codes.Codes`."""
        codes = self._codes
        return codes.levels.nbytes if isinstance(codes, Encoded) else codes.num_bytes

    def for_biases(self) -> LateCodes:
        """See :class:`~finegrain.index.codes.Codes`."""
        return self

    def best(self, asked: Sequence[Asked], biases: Vectors | None = None) -> list[Pool]:
        """See :class:`~finegrain.index.codes.Codes`."""
        codes = self._codes
        if isinstance(codes, ByteCodes):
            return codes.best(asked, biases)
        grid, levels = codes
        weights = np.stack([grid.weights(one.query) for one in asked])
        narrow = weights.astype(np.float32)
        sums = np.empty((len(asked), len(levels)), np.float32)
        for start in range(0, len(levels), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            decoded = levels[part].astype(np.float32)
            for own, weight in zip(sums, narrow, strict=True):
                # Unlike a product by BLAS, einsum uses this thread only.
                np.einsum("nd,d->n", decoded, weight, out=own[part])
        width = levels.shape[1]
        longest = grid.largest + _MIDDLE * width**0.5
        pools = []
        for one, own, weight in zip(asked, sums, weights, strict=True):
            kernel = (width + 4) * 2.0**-23 * float(np.linalg.norm(weight)) * longest
            error = grid.error(one.query, kernel, biases)
            estimates = own.astype(np.float64) + (
                grid.offset(one.query) - _MIDDLE * float(weight.sum())
            )
            if biases is not None:
                estimates += biases.astype(np.float64) / one.query.length
            if one.allowed is not None:
                estimates[~one.allowed] = -np.inf
            bar = max(kth([estimates], one.k) - 2 * error, np.finfo(np.float64).min)
            rows = np.flatnonzero(estimates >= bar)
            pools.append(Pool(rows, estimates[rows], error, rest=-np.inf))
        return pools

    def without(self, rows: Rows) -> LateCodes | ByteCodes | None:
        """See :class:`~finegrain.index.codes.Codes`."""
        codes = self._codes
        if isinstance(codes, ByteCodes):
            return codes.without(rows)
        return LateCodes(codes._replace(levels=np.delete(codes.levels, rows, axis=0)))


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
