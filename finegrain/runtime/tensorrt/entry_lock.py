"""A lock between processes, for one entry of a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made for it; waits for whoever holds it."""
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed, or its process
            # An eviction may have removed the file that we waited for.
            if _is_at(file, path):
                yield
                return


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """The same without waiting: whether the lock is held. Its file is removed with it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not _is_at(file, path):
            yield False
            return
        try:
            yield True
        finally:
            path.unlink()


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
