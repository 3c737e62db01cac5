"""Direct access to the bytes of a gallery's file, beside SQLite's.

On POSIX systems a process that closes any descriptor of a file loses all its locks on it, those of
SQLite included. So a file is opened once in a process and stays open until nobody in it uses the
gallery any more.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

FileId = tuple[int, int]
"""Device and number of a file, which stay with it when it is renamed."""

_LOCK = threading.RLock()
_USERS: dict[FileId, int] = {}
_OPEN: dict[FileId, BinaryIO] = {}


def file_id(path: Path) -> FileId:
    """Which file is at a path now.

    Raises:
        OSError: There is none.
    """
    about = os.stat(path)
    return about.st_dev, about.st_ino


def enter(file: FileId) -> None:
    """Note that somebody in this process begins to use a file through SQLite."""
    with _LOCK:
        _USERS[file] = _USERS.get(file, 0) + 1


def leave(file: FileId) -> None:
    """Note that somebody has closed all connections to a file."""
    with _LOCK:
        _USERS[file] -= 1
        if not _USERS[file]:
            del _USERS[file]
            if (opened := _OPEN.pop(file, None)) is not None:
                opened.close()


def opened(path: Path, file: FileId) -> BinaryIO:
    """The file for reading and writing, unbuffered; only between :func:`enter` and :func:`leave`.

    Raises:
        OSError: It cannot be opened, or another file is at the path.
    """
    with _LOCK:
        if file not in _OPEN:
            if file_id(path) != file:
                raise FileNotFoundError(f"{path} is another file now")
            _OPEN[file] = path.open("r+b", buffering=0)
        return _OPEN[file]
