"""The index in memory, kept equal to the file."""

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
"""How often searches try to delete what has expired; they leave it out at once."""

_EVER = ""  # before any time


class Follower:
    """Reads the vectors at the first search and follows the file from then on.

    Ids only grow and the vectors of a plan never change, so news are the ids above the last
    one seen. Deletions need a comparison of all ids, made when the file counts more of them than
    before. What expires is found by its time; where the clock goes back, all is read anew.

    Args:
        store: The file.
        approximate: Which approximate index to search with; None for exact search.
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
        self._seen_deletions: int | None = None
        self._seen_time = _EVER

    def _empty(self) -> VectorIndex | ApproximateIndex:
        if self._approximate is None:
            return VectorIndex(self._store.dim)
        return ApproximateIndex(self._store, self._approximate)

    def index(self) -> VectorIndex | ApproximateIndex:
        """The index of all that is in the file now. Any number of threads may search it.

        Raises:
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        with self._lock:
            now = times.utc_text(times.now())
            if self._plan != (self._store.fingerprint, self._store.dim) or now < self._seen_time:
                self._begin()
            self._drop_deleted()
            self._drop_expired(now)
            # Asked anew for each chunk, since an approximate index may read ahead by itself.
            while (news := next(self._store.vectors_after(self._index.last_id), None)) is not None:
                self._index.add(*news)
            return self._index

    def _drop_deleted(self) -> None:
        deletions = self._store.deletions()
        if deletions != self._seen_deletions:
            self._index.remove(np.setdiff1d(self._index.ids, self._store.ids()))
            self._seen_deletions = deletions

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
