"""A sample of the gallery, which shows what scores a query has with pictures in general."""

from __future__ import annotations

import threading

import numpy as np

from finegrain.gallery import Gallery
from finegrain.index.exact import Ids, Vectors

SAMPLE_ROWS = 2000
_GROWTH = 1.1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, which spreads consecutive integers (Knuth, TAOCP 3, 6.4)."""


class GallerySample:
    """Vectors of up to ``size`` pictures, chosen by a hash of their ids.

    The choice depends on the ids alone, so every process chooses the same pictures. It is renewed
    when the gallery shrinks or grows by a tenth, and at any change of a gallery that is not larger
    than the sample.

    Args:
        gallery: The gallery.
        size: Largest number of pictures.
    """

    def __init__(self, gallery: Gallery, size: int = SAMPLE_ROWS) -> None:
        self._gallery = gallery
        self._size = size
        self._lock = threading.Lock()
        self._count = -1
        self._vectors: dict[int, Vectors] = {}
        self._rows = np.empty((0, gallery.dim), np.float32)

    @property
    def ids(self) -> Ids:
        """Ids of the pictures of :meth:`rows`, in their order."""
        return np.fromiter(self._vectors, np.int64)

    def rows(self, count: int | None = None) -> Vectors:
        """The vectors, float32 ``[S, D]``; ``count`` is the size of the gallery, if it is known."""
        with self._lock:
            count = len(self._gallery) if count is None else count
            if self._is_outdated(count):
                self._renew()
                self._count = count
            return self._rows

    def _is_outdated(self, count: int) -> bool:
        if count <= self._size:
            return count != self._count or self._vectors.keys() != set(self._gallery)
        return not self._count <= count <= self._count * _GROWTH

    def _renew(self) -> None:
        chosen = chosen_ids(np.fromiter(self._gallery, np.int64), self._size)
        kept = {id_: self._vectors[id_] for id_ in chosen.tolist() if id_ in self._vectors}
        read = self._gallery.vectors(id_ for id_ in chosen.tolist() if id_ not in kept)
        self._vectors = dict(sorted((kept | read).items()))
        self._rows = np.array(list(self._vectors.values()), np.float32)


def chosen_ids(ids: Ids, size: int) -> Ids:
    """The ``size`` ids with the lowest hashes, ascending.

    >>> chosen_ids(np.arange(1, 1000), 3)
    array([468, 629, 925])
    """
    if len(ids) <= size:
        return ids
    hashes = ids.astype(np.uint64) * _MULTIPLIER
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MULTIPLIER
    return np.sort(ids[np.argpartition(hashes, size)[:size]])
