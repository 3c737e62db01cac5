"""Overwriting what a database file holds in places that it does not use.

``secure_delete`` zeroes a cell that is deleted. It does not zero the older copies of a cell that
stay behind in the unused middle of a page when SQLite moves cells between pages. ``VACUUM`` gets
rid of them by writing the whole database twice. Here the pages are read once, and only the unused
bytes that are not zero yet are written, in place. They have no meaning to SQLite
(https://www.sqlite.org/fileformat2.html, "B-tree Pages"), so that an interruption at any byte
leaves the same database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_READ_BYTES = 1 << 20
_HEADER_SIZES = {2: 12, 5: 12, 10: 8, 13: 8}
"""Of a b-tree page by its first byte: interior and leaf pages of indexes and tables."""

_FIRST_HEADER = 100  # the first page begins with the header of the file
_MAX_PAGES = 0x0200_0000
"""An overflow page begins with the number of another page, so below this number its first byte is
0 or 1 and never that of a b-tree page. With pages of 16 KiB this is 512 GiB."""

_LOCK_BYTES = 1 << 30
"""Where SQLite's locks begin; that page is not used, and Windows forbids to read it."""

Page = npt.NDArray[np.uint8]


def overwrite_unused(file: BinaryIO, page_size: int, num_pages: int) -> int:
    """Zero the unused bytes of all b-tree pages; returns how many pages were changed.

    The caller holds SQLite's write lock, and no committed page is outside the file (in a
    journal).

    Args:
        file: Unbuffered, for reading and writing.
        page_size: Bytes of a page.
        num_pages: Pages of the database.

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
    for first, count in _pieces(num_pages, at_once, locks=_LOCK_BYTES // page_size):
        file.seek(first * page_size)
        pages = np.frombuffer(_read(file, count * page_size), np.uint8).reshape(count, page_size)
        for number, page in enumerate(pages, start=first):
            ranges = [
                (start, stop)
                for start, stop in _unused(page, _FIRST_HEADER if number == 0 else 0, usable)
                if page[start:stop].any()
            ]
            for start, stop in ranges:
                file.seek(number * page_size + start)
                _write(file, bytes(stop - start))
            changed += bool(ranges)
    os.fsync(file.fileno())
    return changed


def _pieces(num_pages: int, at_once: int, *, locks: int) -> Iterator[tuple[int, int]]:
    """First page and number of pages of each piece to read, without the page of the locks."""
    for start, stop in ((0, min(locks, num_pages)), (locks + 1, num_pages)):
        for first in range(start, stop, at_once):
            yield first, min(at_once, stop - first)


def _unused(page: Page, header: int, usable: int) -> Iterator[tuple[int, int]]:
    """Where unused bytes of a page begin and end; none of a page that is no sound b-tree page."""
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
    while block:  # free blocks are in ascending order; each begins with the next one and its size
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
