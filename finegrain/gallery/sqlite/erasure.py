"""Deleted pictures leave the file: no byte of them stays in it or in its log."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite import raw_file
from finegrain.gallery.sqlite.connections import Connections, transaction
from finegrain.gallery.sqlite.unused_bytes import overwrite_unused

_ATTEMPTS = 3
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)


def erase(connections: Connections, seconds: float) -> bool:
    """Overwrite what was deleted, where the file notes that it was not done yet.

    The note counts deletions, since others may come meanwhile, and is kept in the file, so that an
    interruption is made up for at the next opening.

    Args:
        connections: To the file.
        seconds: How long to wait for readers that still see the deleted rows, at each of two steps.

    Returns:
        Whether nothing is left to erase.

    Raises:
        sqlite3.Error, OSError: The file cannot be read or written.
    """
    with connections.lock:
        deletions, erased = _noted(connections)
        if erased >= deletions:
            return True
        connections.use_wal()
        for _ in range(_ATTEMPTS):
            if not connections.truncate_log(seconds):
                return False
            if _overwritten(connections, deletions):
                connections.truncate_log(seconds)  # it holds the note now, and nothing else
                return True
        return False


def _noted(connections: Connections) -> tuple[int, int]:
    with connections.reading() as connection:
        deletions, erased = connection.execute("SELECT deletions, scrubbed FROM gallery").fetchone()
        return deletions, erased


def _overwritten(connections: Connections, deletions: int) -> bool:
    """Overwrite unused bytes in the file, and note it; False where somebody has just written.

    It is noted by a connection of its own: every other one, in any process, then sees a foreign
    change and drops its cached pages, whose unused bytes it would otherwise write back.
    """
    file = raw_file.opened(connections.path, connections.file_id())
    with connections.extra() as connection, transaction(connection):
        if connections.log_bytes():
            return False
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
        overwrite_unused(file, page_size, num_pages)
        connection.execute("UPDATE gallery SET scrubbed = max(scrubbed, ?)", (deletions,))
    return True


class Later:
    """Tries something again in a thread of its own, until it succeeds.

    Args:
        attempt: A method that says whether it succeeded; its object may be forgotten meanwhile.
    """

    def __init__(self, attempt: Callable[[], bool]) -> None:
        self._attempt = weakref.WeakMethod(attempt)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, *, wait: float = 0.0) -> None:
        """Begin unless it is under way; wait so long at most for the first attempt to succeed."""
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
        """Have it end after the attempt that is under way."""
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
            # What cannot be done now, for a full disk or another writer, may be done later.
            with suppress(GalleryError):
                if attempt():
                    return
            del attempt
            self._stopped.wait(_RETRY_SECONDS[min(attempts, len(_RETRY_SECONDS) - 1)])
            attempts += 1
