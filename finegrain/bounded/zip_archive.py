"""Opens zip archives whose directory of members has a bounded size.

``zipfile`` reads the directory and makes an object of each member before a caller can look at
their number. A million members take 17 s and 500 MiB.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _BoundedReads(io.FileIO):
    """A file that refuses to read more than a number of bytes at once."""

    max_bytes: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.max_bytes is not None and size is not None and size > self.max_bytes:
            raise zipfile.BadZipFile(
                f"its directory of members has {size} bytes; expected at most {self.max_bytes}"
            )
        return super().read(size)


@contextmanager
def open_zip(path: Path, *, max_directory: int) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading.

    Args:
        path: Path of the archive.
        max_directory: Largest size of its directory in bytes, at least 128 KiB. A member takes 46
            bytes and its name.

    Raises:
        zipfile.BadZipFile: The archive is damaged, or its directory is larger.
    """
    with _BoundedReads(path) as file:
        # zipfile reads the last 64 KiB, and then the directory at once
        file.max_bytes = max_directory
        with zipfile.ZipFile(file) as archive:
            file.max_bytes = None
            yield archive
