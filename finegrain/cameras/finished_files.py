"""Remembers which films of a folder are stored, so that an interrupted watch continues."""

from __future__ import annotations

import json
import os
from pathlib import Path

from finegrain.errors import CameraError


class FinishedFiles:
    """A list of films, one JSON text a line, next to the gallery.

    A film is known by its path, size and time of change. A line that was cut off by a crash is
    ignored, so its film is read again, and its tracks are recognised in the gallery.

    Args:
        path: Path of the list, or None for a gallery without a file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: set[tuple[object, ...]] = set()
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    self._known.add(tuple(json.loads(line)))
                except (ValueError, TypeError):
                    continue

    def __contains__(self, file: Path) -> bool:
        return _identity(file) in self._known

    def add(self, file: Path) -> None:
        """Add a film whose tracks are stored.

        Raises:
            CameraError: The list cannot be written.
        """
        identity = _identity(file)
        self._known.add(identity)
        if self._path is None:
            return
        try:
            # Paths of films are private, as the gallery is.
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as lines:
                lines.write(f"\n{json.dumps(identity)}")
                lines.flush()
                os.fsync(lines.fileno())
        except OSError as error:
            raise CameraError(f"{self._path} cannot be written: {error.strerror}") from error


def _identity(file: Path) -> tuple[object, ...]:
    try:
        status = file.stat()
    except OSError:
        return (str(file.absolute()), 0, 0)
    return (str(file.absolute()), status.st_size, status.st_mtime_ns)
