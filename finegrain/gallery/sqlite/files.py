"""Names of files, creating them for their owner only, and renaming them once they are complete."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER_ONLY = 0o600


def vectors_of(path: Path) -> Path:
    """Path of the file with the vectors of a gallery."""
    return path.with_name(f"{path.name}.vectors")


def next_vectors_of(path: Path) -> Path:
    """Path of a new file of vectors until it has replaced the present one."""
    return path.with_name(f"{path.name}.vectors.next")


def codes_of(path: Path) -> Path:
    """Path of the file with the codes of an approximate index over a gallery."""
    return path.with_name(f"{path.name}.codes")


@contextmanager
def unfinished_file(target: Path) -> Generator[Path]:
    """An empty file next to a target, readable by its owner only, removed after the block."""
    name = f".{target.name}.{os.getpid()}-{threading.get_ident()}.new"
    unfinished = target.with_name(name)
    unfinished.touch(OWNER_ONLY, exist_ok=False)
    try:
        yield unfinished
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def publish_new(unfinished: Path, target: Path) -> bool:
    """Rename a complete file to a new path; False if the path exists already."""
    _sync(unfinished)
    try:
        os.link(unfinished, target)
    except FileExistsError:
        return False
    except OSError:  # the file system has no hard links
        if target.exists():
            return False
        os.rename(unfinished, target)
    sync_folder(target.parent)
    return True


def publish_over(unfinished: Path, target: Path) -> None:
    """Rename a complete file to a path, replacing an existing file."""
    _sync(unfinished)
    os.replace(unfinished, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; does nothing on Windows."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
