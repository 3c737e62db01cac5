"""The index in memory, which follows the file."""

from __future__ import annotations

import threading
import time

import numpy as np

from finegrain import times
from finegrain.gallery.sqlite.store import Store
from finegrain.index.approximate import Approximate, ApproximateIndex
from finegrain.index.exact import VectorIndex
from finegrain.runtime.forks import pause_at_fork

TIDY_SECONDS = 60.0
"""Seconds between attempts of searches to delete expired pictures from the file."""

_EVER = ""  # before any time


class Follower:
    """Reads all vectors at the first search, and only changes afterwards.

    Ids only grow and the vectors of a plan never change, so new pictures are those above the last
    id seen. If the file counts more deletions than before, or a picture was found to be damaged,
    all ids are compared. Expired pictures are found by their time. If the clock was set back,
    everything is read again.

    Args:
        store: The file.
        approximate: Kind of approximate index, or None for exact search.
    """

    def __init__(self, store: Store, approximate: Approximate | None = None) -> None:
        self._store = store
        self._approximate = approximate
        self._lock = threading.RLock()
        self._untidy = False
        self._tidied = -TIDY_SECONDS
        self._begin()
        pause_at_fork(self)

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()

    def _begin(self) -> None:
        self._plan = (self._store.fingerprint, self._store.dim)
        self._index = self._empty()
        self._seen_losses: tuple[int, int] | None = None
        self._seen_time = _EVER

    def _empty(self) -> VectorIndex | ApproximateIndex:
        if self._approximate is None:
            return VectorIndex(self._store.dim)
        return ApproximateIndex(self._store, self._approximate)

    def index(self) -> VectorIndex | ApproximateIndex:
        """The index over the current content of the file. Any number of threads may search it.

        Raises:
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        with self._lock:
            now = times.utc_text(times.now())
            if self._plan != (self._store.fingerprint, self._store.dim) or now < self._seen_time:
                self._begin()
            self._drop_lost()
            self._drop_expired(now)
            # Query again for each chunk, since an approximate index may itself read further rows.
            while (chunk := next(self._store.vectors_after(self._index.last_id), None)) is not None:
                self._index.add(*chunk)
            return self._index

    def _drop_lost(self) -> None:
        losses = self._store.deletions(), len(self._store.damaged)
        if losses != self._seen_losses:
            self._index.remove(np.setdiff1d(self._index.ids, self._store.ids()))
            self._seen_losses = losses

    def _drop_expired(self, now: str) -> None:
        expired = self._store.ids_expired(self._seen_time, now)
        self._seen_time = now
        if len(expired):
            self._index.remove(expired)
            self._untidy = True
        if self._untidy and time.monotonic() - self._tidied >= TIDY_SECONDS:
            self._store.tidy_soon()
            self._untidy = False
            self._tidied = time.monotonic()
