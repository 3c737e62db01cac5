"""Decoding stored vectors, and detecting damage to them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from finegrain.gallery.entries import not_normalised
from finegrain.index.exact import Ids, Vectors

StoredVector = tuple[int, object, object]
"""Id of the picture, its vector as little-endian float32, and the CRC-32 (None if unknown)."""


def decoded(chunk: Sequence[StoredVector], dim: int) -> tuple[Ids, Vectors, list[int]]:
    """Ids and vectors ``[n, D]`` of the intact rows, and the ids of the damaged ones."""
    damaged = [id_ for id_, _ in faults_of(chunk, dim)]
    left_out = set(damaged)
    intact = [
        (id_, data) for id_, data, _ in chunk if id_ not in left_out and isinstance(data, bytes)
    ]
    ids = np.array([id_ for id_, _ in intact], np.int64)
    return ids, _numbers([data for _, data in intact], dim), damaged


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
