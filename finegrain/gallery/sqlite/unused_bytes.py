"""Overwriting the unused bytes of a database file with zeros.

``secure_delete`` zeroes a deleted cell. It does not zero older copies of the cell, which stay in
the unused middle of a page when SQLite moves cells between pages. ``VACUUM`` removes them, but
writes the whole database twice. This module reads each page once, and writes only unused bytes that
are not zero yet, in place. SQLite ignores these bytes
(https://www.sqlite.org/fileformat2.html, "B-tree Pages"), so an interruption at any point leaves a
valid database. Each write to a gallery cleans the pages that it touched, so a deletion does not
have to read the others.

The write-ahead log lists these pages. Its format is stable and documented (same page, "The
Write-Ahead Log"): it begins with a header of 32 bytes. A header of 24 bytes precedes each page, and
starts with the number of the page. All headers repeat the two salts of the log, which change when
SQLite begins the log again over the old content.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_READ_BYTES = 1 << 20
_HEADER_SIZES = {2: 12, 5: 12, 10: 8, 13: 8}
"""Header size of a b-tree page by its first byte (interior or leaf, of an index or a table)."""

_FIRST_HEADER = 100  # the first page starts with the file header
_MAX_PAGES = 0x0200_0000
"""Most pages of a database. An overflow page starts with a page number. Below this limit its first
byte is 0 or 1, which is never the first byte of a b-tree page. With pages of 16 KiB the limit is
512 GiB."""

_LOG_HEADER = 32
_FRAME_HEADER = 24
_SALTS = slice(16, 24)  # in the header of the log; in the header of a page, from byte 8

_LOCK_BYTES = 1 << 30
"""Offset of SQLite's locks. The page there is unused, and Windows does not allow reading it."""

Page = npt.NDArray[np.uint8]


def overwrite_unused(
    file: BinaryIO, page_size: int, num_pages: int, pages: Collection[int] | None = None
) -> int:
    """Zero the unused bytes of b-tree pages; return the number of pages changed.

    The caller holds SQLite's write lock, and all committed pages are in the file and not in a
    log.

    Args:
        file: The database file, unbuffered, for reading and writing.
        page_size: Size of a page in bytes.
        num_pages: Number of pages.
        pages: Zero-based numbers of the pages to change; None for all. Numbers of pages that the
            file no longer has are ignored.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: It has too many pages, or pointer maps (``auto_vacuum``).
    """
    file.seek(0)
    header = file.read(_FIRST_HEADER)
    if num_pages >= _MAX_PAGES or any(header[52:56]):
        raise ValueError(f"unused bytes of {num_pages} pages cannot be told apart")
    usable = page_size - header[20]
    at_once = max(1, _READ_BYTES // page_size)
    changed = 0
    locks = _LOCK_BYTES // page_size
    pieces = (
        _pieces(num_pages, at_once, locks=locks)
        if pages is None
        else ((page, 1) for page in sorted(pages) if page < num_pages and page != locks)
    )
    for first, count in pieces:
        file.seek(first * page_size)
        content = np.frombuffer(_read(file, count * page_size), np.uint8).reshape(count, page_size)
        for number, page in enumerate(content, start=first):
            ranges = [
                (start, stop)
                for start, stop in _unused(page, _FIRST_HEADER if number == 0 else 0, usable)
                if page[start:stop].any()
            ]
            for start, stop in ranges:
                file.seek(number * page_size + start)
                _write(file, bytes(stop - start))
            changed += bool(ranges)
    if changed or pages is None:
        os.fsync(file.fileno())
    return changed


def _pieces(num_pages: int, at_once: int, *, locks: int) -> Iterator[tuple[int, int]]:
    """First page and number of pages of each piece to read, skipping the page of the locks."""
    for start, stop in ((0, min(locks, num_pages)), (locks + 1, num_pages)):
        for first in range(start, stop, at_once):
            yield first, min(at_once, stop - first)


def _unused(page: Page, header: int, usable: int) -> Iterator[tuple[int, int]]:
    """Ranges of unused bytes in a page; empty if it is not a valid b-tree page."""
    size = _HEADER_SIZES.get(int(page[header]))
    if size is None:
        return
    pointers_end = header + size + 2 * _number(page, header + 3)
    content = _number(page, header + 5) or 65536
    if not pointers_end <= content <= usable:
        return
    yield pointers_end, content
    block = _number(page, header + 1)
    last = content - 1
    while block:  # free blocks ascend; each starts with the offset of the next one and its own size
        if not last < block <= usable - 4:
            return
        end = block + _number(page, block + 2)
        if end > usable:
            return
        yield block + 4, end
        last, block = block, _number(page, block)


def _number(page: Page, at: int) -> int:
    return int(page[at]) << 8 | int(page[at + 1])


def _read(file: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := file.read(count - len(data))):
            raise OSError(f"the file ends {count - len(data)} bytes early")
        data += more
    return data


def _write(file: BinaryIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


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
        header = file.read(_LOG_HEADER)
        if header != self._header:
            self._header, self._num_settled = header, 0
        self._num_listed = self._num_settled
        pages: set[int] = set()
        if len(header) < _LOG_HEADER:
            return pages
        size = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        while True:
            file.seek(_LOG_HEADER + self._num_listed * size)
            frame = file.read(_FRAME_HEADER)
            if len(frame) < _FRAME_HEADER or frame[8:16] != header[_SALTS]:
                return pages
            pages.add(int.from_bytes(frame[:4], "big") - 1)
            self._num_listed += 1
