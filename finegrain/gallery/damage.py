"""Detecting damage to vectors that are stored in a table."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from finegrain.gallery.entries import not_normalised
from finegrain.index.exact import Vectors

StoredVector = tuple[int, object, object]
"""Id of the picture, its vector as little-endian float32, and the CRC-32 (None if unknown)."""


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
