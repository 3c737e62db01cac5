"""Erasing deleted pictures, so that none of their bytes stays in the file or its log."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.connections import Connections

_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)


def erase(
    connections: Connections,
    seconds: float,
    erase_vectors: Callable[[sqlite3.Connection], None],
) -> bool:
    """Overwrite the bytes of deleted pictures, if the file records unfinished erasure.

    The file counts deletions and erased deletions. The counters are in the file so that an
    interrupted erasure continues when the gallery is opened again; they are counters and not a
    flag because other deletions may happen meanwhile.

    Args:
        connections: Connections to the file.
        seconds: How long to wait for readers that still see deleted rows.
        erase_vectors: Overwrites the vectors of deleted pictures inside a write transaction.

    Returns:
        Whether nothing is left to erase.

    Raises:
        sqlite3.Error, OSError: The file cannot be read or written.
    """
    with connections.lock:
        deletions, erased = _counters(connections)
        if erased >= deletions:
            return True
        connections.use_wal()
        truncated = connections.truncate_log(seconds)
        if truncated is None:
            return False
        with connections.writing() as connection:
            connections.overwrite_unused(truncated)
            erase_vectors(connection)
            connection.execute("UPDATE gallery SET scrubbed = max(scrubbed, ?)", (deletions,))
        return True


def _counters(connections: Connections) -> tuple[int, int]:
    """Number of deletions, and number of erased deletions."""
    with connections.reading() as connection:
        deletions, erased = connection.execute("SELECT deletions, scrubbed FROM gallery").fetchone()
        return deletions, erased


class Later:
    """Repeats an attempt in a background thread until it succeeds.

    Args:
        attempt: A method that returns whether it succeeded. The thread holds only a weak
            reference to its object.
    """

    def __init__(self, attempt: Callable[[], bool]) -> None:
        self._attempt = weakref.WeakMethod(attempt)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, *, wait: float = 0.0) -> None:
        """Start the thread if it is not running; wait up to ``wait`` seconds for it to succeed."""
        with self._lock:
            if self._stopped.is_set():
                return
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="finegrain-erasure", daemon=True
                )
                self._thread.start()
            thread = self._thread
        thread.join(wait)

    def stop(self) -> None:
        """Stop the thread after the current attempt."""
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        attempts = 0
        while not self._stopped.is_set():
            attempt = self._attempt()
            if attempt is None:
                return
            # An attempt fails if the disk is full or another process writes; try again later.
            with suppress(GalleryError):
                if attempt():
                    return
            del attempt
            self._stopped.wait(_RETRY_SECONDS[min(attempts, len(_RETRY_SECONDS) - 1)])
            attempts += 1
