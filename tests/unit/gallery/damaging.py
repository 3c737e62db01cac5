"""Reads and damages the file of a gallery's vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finegrain.gallery.sqlite.vector_file import VectorFile


def vectors_file(gallery: Path | str) -> Path:
    return Path(f"{gallery}.vectors")


def place_of(gallery: Path | str, slot: int, name: str = "vectors") -> int:
    """Position of a field of a slot in the file."""
    file = VectorFile(vectors_file(gallery), writable=False)
    return file._at(slot // file.block_rows, name, slot % file.block_rows)


def stored_vector(gallery: Path | str, slot: int) -> np.ndarray:
    file = VectorFile(vectors_file(gallery), writable=False)
    return file.vectors(np.array([slot]))[0]


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file, in place."""
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        file.write(data)


def flip(gallery: Path | str, at: int, mask: int = 1) -> None:
    """Flip bits of one byte of the file."""
    path = vectors_file(gallery)
    overwrite(path, at, bytes([path.read_bytes()[at] ^ mask]))


def flip_vector(gallery: Path | str, slot: int, byte: int = 0, mask: int = 1) -> None:
    """Flip bits of one byte of a stored vector."""
    flip(gallery, place_of(gallery, slot) + byte, mask)


def overwrite_vector(gallery: Path | str, slot: int, vector: np.ndarray) -> None:
    data = vector.astype("<f4").tobytes()
    overwrite(vectors_file(gallery), place_of(gallery, slot), data)
