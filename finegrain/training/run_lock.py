"""One training at a time into a run folder."""

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
"""Files of a run folder: what is locked, and who holds it."""


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Hold a run folder for as long as a training writes into it.

    The lock belongs to the process: it ends with it, however that ends.

    Raises:
        CheckpointError: Another training holds it; the message says which.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"{folder} is being trained into by {_holder(folder)}. Wait until it ends or stop it, "
            "or choose another folder by -o."
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
