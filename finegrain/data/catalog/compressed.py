"""Unpacks tables that are compressed with gzip."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from pathlib import Path

from finegrain.errors import DataError

GZIP = b"\x1f\x8b"
"""The first bytes of a file that is compressed with gzip."""

MAX_RATIO = 200
"""Largest ratio of the sizes after and before unpacking. Tables of text have at most about 30."""

MAX_BYTES = 1 << 32
"""Largest size after unpacking, in bytes."""

_ALWAYS_ALLOWED = 1 << 24  # a small table of equal rows may have any ratio
_CHUNK = 1 << 20


def unpacked(path: Path) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Unpack a file into a temporary folder that only the owner may read.

    Returns:
        The unpacked file, whose name lacks ``.gz``; and the folder, which is removed when it is
        no longer referenced.

    Raises:
        DataError: The file is damaged, is an archive, or is too large after unpacking.
    """
    limit = min(MAX_BYTES, max(_ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size))
    # On Windows, a file that is still open cannot be removed; the system's cleaning removes it.
    folder = tempfile.TemporaryDirectory(prefix="finegrain-", ignore_cleanup_errors=True)
    name = path.name.removesuffix(".gz") or path.name
    target = Path(folder.name) / name
    size = 0
    try:
        with gzip.open(path) as packed, target.open("wb") as file:
            while chunk := packed.read(_CHUNK):
                if size == 0 and (chunk.startswith(GZIP) or chunk[257:].startswith(b"ustar")):
                    raise DataError(f"{path} is a compressed archive. Unpack it first.")
                size += len(chunk)
                if size > limit:
                    raise DataError(
                        f"expected at most {limit >> 20} MiB after unpacking {path}, got more. "
                        "Unpack it first."
                    )
                file.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is compressed, and cannot be unpacked: {error}.") from error
    return target, folder
