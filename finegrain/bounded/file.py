"""Reads small files whole, and refuses large ones."""

from __future__ import annotations

from pathlib import Path

from finegrain.errors import FinegrainError


def read_bounded(file: Path, limit: int, failure: type[FinegrainError]) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Args:
        file: The file.
        limit: Maximum size in bytes.
        failure: The class of the error if the file cannot be read or is larger.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise failure(f"{file} cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise failure(f"expected at most {limit} bytes in {file}, got more; refused")
    return data
