"""Vectors as they are stored, and how damage to one of them is seen."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from finegrain.errors import GalleryError
from finegrain.index.exact import Ids, Vectors

LENGTH_TOLERANCE = 1e-2
"""How far the length of a vector may be from 1: half precision keeps about three digits."""

StoredVector = tuple[int, object, object]
"""Id of the picture, little-endian float32 numbers, and their CRC-32 or None where unknown."""


def decoded(chunk: Sequence[StoredVector], dim: int, path: Path) -> tuple[Ids, Vectors]:
    """Ids and vectors ``[n, D]`` of stored rows.

    Args:
        chunk: At least one row.
        dim: Width of the vectors.
        path: Of the gallery, for messages.

    Raises:
        GalleryError: A vector has another width or checksum than it should have, or its length
            is not 1.
    """
    for id_, what in faults_of(chunk, dim):
        raise GalleryError(
            f"{path}: the stored vector of picture {id_} {what}. The file is damaged; restore it "
            "from a backup, or index the pictures again."
        )
    ids, data, _ = zip(*chunk, strict=True)
    return np.array(ids, np.int64), _numbers(data, dim)


def faults_of(chunk: Sequence[StoredVector], dim: int) -> Iterator[tuple[int, str]]:
    """Ids of damaged vectors, and what is wrong with each."""
    whole: list[tuple[int, bytes]] = []
    for id_, stored, checksum in chunk:
        if not isinstance(stored, bytes) or len(stored) != 4 * dim:
            yield id_, f"does not have {dim} numbers"
        elif checksum is not None and zlib.crc32(stored) != checksum:
            yield id_, "does not agree with its checksum"
        else:
            whole.append((id_, stored))
    for row in not_normalised(_numbers([stored for _, stored in whole], dim)).tolist():
        yield whole[row][0], "does not have length 1"


def not_normalised(vectors: Vectors) -> Ids:
    """Rows of ``[N, D]`` whose length is not 1, NaN and infinity included."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
        return np.flatnonzero(~(np.abs(np.sqrt(squares) - 1) < LENGTH_TOLERANCE))


def _numbers(data: Sequence[bytes], dim: int) -> Vectors:
    numbers = np.frombuffer(b"".join(data), "<f4").reshape(len(data), dim)
    return numbers.astype(np.float32, copy=False)
