"""The lock of a run folder: one training at a time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from finegrain.errors import CheckpointError

LOCK, HOLDER = ".lock", ".lock.json"
"""Files of a run folder: the lock, and the description of its holder."""


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Lock a run folder while a training writes into it.

    The lock belongs to the process: the operating system releases it when the process ends, also
    after a crash.

    Raises:
        CheckpointError: Another training holds the lock; the message names it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"{folder} is in use by another training: {_holder(folder)}. Wait until it ends, stop "
            "it, or choose another folder with -o."
        ) from error
    try:
        holder = {
            "process": os.getpid(),
            "machine": platform.node(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        (folder / HOLDER).write_text(json.dumps(holder) + "\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
