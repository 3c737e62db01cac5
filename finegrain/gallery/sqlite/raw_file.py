"""Direct access to the bytes of a gallery's file, in addition to SQLite's access.

On POSIX systems, closing any descriptor of a file drops all locks of the process on that file,
including those of SQLite. A file is therefore opened once per process, and stays open until no
gallery in the process uses it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

FileId = tuple[int, int]
"""Device and inode number of a file; they do not change when it is renamed."""

_LOCK = threading.RLock()
_USERS: dict[FileId, int] = {}
_OPEN: dict[FileId, BinaryIO] = {}


def file_id(path: Path) -> FileId:
    """Identity of the file that is at a path now.

    Raises:
        OSError: The file does not exist.
    """
    about = os.stat(path)
    return about.st_dev, about.st_ino


def enter(file: FileId) -> None:
    """Register a user of a file in this process."""
    with _LOCK:
        _USERS[file] = _USERS.get(file, 0) + 1


def leave(file: FileId) -> None:
    """Unregister a user, after all its connections to the file are closed."""
    with _LOCK:
        _USERS[file] -= 1
        if not _USERS[file]:
            del _USERS[file]
            if (opened := _OPEN.pop(file, None)) is not None:
                opened.close()


def opened(path: Path, file: FileId) -> BinaryIO:
    """The file, unbuffered, for reading and writing; valid until :func:`leave`.

    Raises:
        OSError: It cannot be opened, or another file is at the path.
    """
    with _LOCK:
        if file not in _OPEN:
            if file_id(path) != file:
                raise FileNotFoundError(f"{path} is another file now")
            _OPEN[file] = path.open("r+b", buffering=0)
        return _OPEN[file]
