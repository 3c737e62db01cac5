"""Making files that only their owner may read, and giving them their name when they are whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER_ONLY = 0o600


@contextmanager
def unfinished_file(target: Path) -> Generator[Path]:
    """An empty file beside a target, for its owner only, which is gone after the block."""
    name = f".{target.name}.{os.getpid()}-{threading.get_ident()}.new"
    unfinished = target.with_name(name)
    unfinished.touch(OWNER_ONLY, exist_ok=False)
    try:
        yield unfinished
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def publish_new(unfinished: Path, target: Path) -> bool:
    """Give a whole file its name; False where there is a file of that name already."""
    _sync(unfinished)
    try:
        os.link(unfinished, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if target.exists():
            return False
        os.rename(unfinished, target)
    sync_folder(target.parent)
    return True


def publish_over(unfinished: Path, target: Path) -> None:
    """Give a whole file its name, in the place of a file that may have it."""
    _sync(unfinished)
    os.replace(unfinished, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
