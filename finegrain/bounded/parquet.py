"""Bounds what a Parquet file becomes in memory before any of its pages is decompressed.

A file of 1 kB can state a page of 2 GiB, or refer to a value of 20 MB from each of a million rows.
The footer states the sizes, which may be wrong. A reader allocates what the header of each page
states (https://parquet.apache.org/docs/file-format/), so these headers are read here. They are
structures in Thrift's compact protocol, and pyarrow does not expose them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import require

MAX_RATIO = 200
"""Largest ratio of the sizes after and before unpacking."""

ALWAYS_READ = 1 << 28
"""Size after unpacking that any file may have, in bytes."""

ALWAYS_ROWS = 1 << 20
"""Number of rows that any file may have. One more is allowed for each byte."""

ALWAYS_VALUES = 1 << 24
"""Number of values, with the empty ones, that any file may have. Eight more are allowed for each
byte. Encodings of runs make any number of equal values as small as one."""

MAX_COLUMNS = 10_000
"""Largest number of columns, with those inside lists and structures."""

MAX_FOOTER_BYTES = 1 << 25
"""Largest size of the footer, which takes about 70 times as much memory."""

MAX_BATCH_BYTES = 1 << 29
"""Largest size of the rows that are in memory at once, if each had the longest value possible."""

_FOOTER_END = 8
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """The sizes of a page in bytes, and its number of values."""

    unpacked: int
    packed: int
    values: int


def check_footer(path: Path) -> None:
    """Check the size of the footer before it is parsed.

    Raises:
        ValueError: It is larger than :data:`MAX_FOOTER_BYTES`.
        OSError: The file cannot be read, or is too short for a footer.
    """
    with path.open("rb") as file:
        file.seek(-_FOOTER_END, 2)
        size = int.from_bytes(file.read(4), "little")
    if size > MAX_FOOTER_BYTES:
        raise ValueError(f"its footer has {size:,} bytes; expected at most {MAX_FOOTER_BYTES:,}")


def rows_at_once(path: Path, metadata: Any, most: int, groups: Iterable[int] | None = None) -> int:
    """Check the sizes of a file, and return how many of its rows may be in memory at once.

    Args:
        path: The file.
        metadata: Its ``pyarrow.parquet.FileMetaData``.
        most: Number of rows at once of a file whose values are short.
        groups: The row groups to check and to read; all by default.

    Raises:
        ValueError: The file has too many rows, columns, values or bytes, or is damaged.
    """
    size = path.stat().st_size
    _check("rows", metadata.num_rows, ALWAYS_ROWS + size)
    _check("columns", metadata.num_columns, MAX_COLUMNS)
    values = unpacked = 0
    longest: dict[int, int] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        numbers = range(metadata.num_row_groups) if groups is None else groups
        for group in map(metadata.row_group, numbers):
            for number in range(group.num_columns):
                column = group.column(number)
                for page in _pages(data, column):
                    values += page.values
                    unpacked += page.unpacked
                    _check("values", values, ALWAYS_VALUES + 8 * size)
                    _check("bytes after unpacking", unpacked, max(ALWAYS_READ, MAX_RATIO * size))
                    if "BYTE_ARRAY" in column.physical_type:
                        longest[number] = max(longest.get(number, 0), page.unpacked)
    return max(1, min(most, MAX_BATCH_BYTES // max(1, sum(longest.values()))))


def unpacked_bytes(column: Any) -> int:
    """Bytes of the cells of a column, with a repeated value counted each time."""
    pyarrow = require("pyarrow", "parquet")
    if not pyarrow.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not pyarrow.types.is_string(values.type) and not pyarrow.types.is_binary(values.type):
        return int(column.nbytes)
    compute = require("pyarrow.compute", "parquet")
    lengths = compute.take(compute.binary_length(values), column.indices)
    return int(column.nbytes) + (compute.sum(lengths).as_py() or 0)


def _check(what: str, number: int, limit: int) -> None:
    if number > limit:
        raise ValueError(f"expected at most {limit:,} {what} for its size, got {number:,}")


def _pages(data: mmap.mmap, column: Any) -> Iterator[_Page]:
    """The pages of a column chunk."""
    # A column without values has no data page, which is stated as the offset 0.
    offsets = [column.data_page_offset or 0, column.dictionary_page_offset or 0]
    start = min(filter(None, offsets), default=0)
    end = start + column.total_compressed_size
    if not 0 <= start <= end <= len(data):
        raise ValueError("a column lies outside the file")
    at = start
    while at < end:
        page, at = _page(data, at)
        yield page
        at += page.packed


def _page(data: mmap.mmap, at: int) -> tuple[_Page, int]:
    """A page, and the position of its content."""
    try:
        fields, at = _structure(data, at)
        headers = [fields[number] for number in (5, 7, 8) if number in fields]
        page = _Page(
            unpacked=fields[2], packed=fields[3], values=sum(header[1] for header in headers)
        )
    except (LookupError, TypeError) as error:
        raise ValueError("the header of a page is damaged") from error
    if min(page.unpacked, page.packed, page.values) < 0:
        raise ValueError("the header of a page states a negative size")
    return page, at


def _structure(data: mmap.mmap, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The integers and structures of a Thrift structure by their numbers, and its end."""
    if depth > _MAX_DEPTH:
        raise ValueError("the header of a page is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        step, kind = kind >> 4, kind & 15
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        match kind:
            case 1 | 2:  # booleans, whose value is the kind
                pass
            case 3:  # a byte
                at += 1
            case 4 | 5 | 6:  # integers of 16, 32 and 64 bits
                fields[number], at = _integer(data, at)
            case 7:  # a float
                at += 8
            case 8:  # bytes
                length, at = _varint(data, at)
                at += length
            case 12:
                fields[number], at = _structure(data, at, depth + 1)
            case _:
                raise ValueError(f"the header of a page has a field of the unknown kind {kind}")
    return fields, at + 1


def _integer(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("the header of a page has an integer of more than 64 bits")
