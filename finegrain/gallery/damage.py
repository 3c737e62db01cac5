"""Damage to a gallery: detecting it in vectors of a table, and what repairs it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from finegrain.gallery.entries import not_normalised
from finegrain.index.exact import Vectors

StoredVector = tuple[int, object, object]
"""Id of the picture, its vector as little-endian float32, and the CRC-32 (None if unknown)."""


class Remedy(Enum):
    """What repairs a fault; the value is advice."""

    COMPACT = "Write them again from what is intact: finegrain gallery compact FILE"
    INDEX = (
        "Index the files of the damaged pictures again: finegrain index PLAN PICTURES. Delete "
        "pictures that have no file, or are still damaged: finegrain gallery delete FILE --ids IDS"
    )
    REINDEX = "Begin the reindexing again with a copy from a backup."
    RESTORE = "Restore the gallery from a backup, or index all pictures into a new one."


class Fault(NamedTuple):
    """A fault of a gallery.

    Attributes:
        text: What is damaged.
        remedy: What repairs it.
    """

    text: str
    remedy: Remedy


def faults_of(chunk: Sequence[StoredVector], dim: int) -> Iterator[tuple[int, str]]:
    """Ids of damaged vectors, each with a description of the damage."""
    intact: list[tuple[int, bytes]] = []
    for id_, stored, checksum in chunk:
        if not isinstance(stored, bytes) or len(stored) != 4 * dim:
            yield id_, f"does not have {dim} numbers"
        elif checksum is not None and zlib.crc32(stored) != checksum:
            yield id_, "does not agree with its checksum"
        else:
            intact.append((id_, stored))
    for row in not_normalised(_numbers([stored for _, stored in intact], dim)).tolist():
        yield intact[row][0], "does not have length 1"


def _numbers(data: Sequence[bytes], dim: int) -> Vectors:
    numbers = np.frombuffer(b"".join(data), "<f4").reshape(len(data), dim)
    return numbers.astype(np.float32, copy=False)
