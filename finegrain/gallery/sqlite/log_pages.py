"""The pages that SQLite's write-ahead log holds.

The format is stable and documented (https://www.sqlite.org/fileformat2.html, "The Write-Ahead
Log"). A log begins with a header of 32 bytes. A header of 24 bytes precedes each page, and starts
with the number of the page. All headers repeat the two salts of the log, which change when SQLite
begins the log again over the old content.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_HEADER = 32
_FRAME_HEADER = 24
_SALTS = slice(16, 24)  # in the header of the log; in the header of a page, from byte 8


class LogPages:
    """Lists pages that were added to a log since the last call of :meth:`settled`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = b""
        self._num_settled = 0
        self._num_listed = 0

    def new(self) -> set[int]:
        """Zero-based numbers of the pages; also pages of a write that was undone.

        Raises:
            OSError: The log cannot be read.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                return self._read(file)
        except FileNotFoundError:
            self._header, self._num_settled, self._num_listed = b"", 0, 0
            return set()

    def settled(self) -> None:
        """Note that the unused bytes of the pages that were listed last are overwritten."""
        self._num_settled = self._num_listed

    def _read(self, file: BinaryIO) -> set[int]:
        header = file.read(_HEADER)
        if header != self._header:
            self._header, self._num_settled = header, 0
        self._num_listed = self._num_settled
        pages: set[int] = set()
        if len(header) < _HEADER:
            return pages
        size = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        while True:
            file.seek(_HEADER + self._num_listed * size)
            frame = file.read(_FRAME_HEADER)
            if len(frame) < _FRAME_HEADER or frame[8:16] != header[_SALTS]:
                return pages
            pages.add(int.from_bytes(frame[:4], "big") - 1)
            self._num_listed += 1
