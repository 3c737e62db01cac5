"""Opens a table of any format, which is detected from the content and not from the name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from finegrain.data.catalog.compressed import GZIP, unpacked
from finegrain.data.catalog.delimited import read_delimited
from finegrain.data.catalog.encoding import utf16_without_mark
from finegrain.data.catalog.json_rows import read_json, read_json_lines
from finegrain.data.catalog.parquet import read_parquet
from finegrain.data.catalog.row import FIND_OUT, Row, Table, TextFormat
from finegrain.data.catalog.workbook import read_workbook
from finegrain.data.catalog.xml_items import read_xml_items
from finegrain.errors import DataError

DELIMITED = (".csv", ".tsv", ".psv", ".tab")
JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = frozenset({*DELIMITED, *JSON_LINES, ".txt", ".json", ".parquet", ".xlsx", ".xml"})
"""Endings of tables."""

_PEEKED = 50
_SAMPLE = 1024
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NO_TABLES = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls). Save it as .xlsx or CSV",
    b"%PDF": "a PDF. Export the table as CSV",
    b"BZh": "compressed with bzip2. Unpack it first",
    b"\xfd7zXZ": "compressed with xz. Unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd. Unpack it first",
    b"SQLite format 3": "an SQLite database. Export the table as CSV",
}
_HTML = re.compile(r"\s*<(?:!doctype\s+html|html|head|body|table|meta)\b", re.IGNORECASE)
_JSON_START = re.compile(r'\[\s*(?:\{|$)|\{\s*(?:"|$)')
"""The start of JSON, which no line of column names has."""


def open_table(path: Path, text: TextFormat = FIND_OUT) -> Table:
    """Open a table with any ending.

    Delimited text, JSON (an array, or one object per line), the XML of RSS and Atom feeds,
    Parquet and Excel workbooks are distinguished by their first bytes. Any of these may be
    compressed with gzip.

    Args:
        path: The file.
        text: Encoding and separator, if they are known.

    Raises:
        DataError: The file does not exist, has another format, or cannot be read.
        MissingExtraError: ``pyarrow`` for Parquet or ``openpyxl`` for Excel is not installed.
    """
    if not path.is_file():
        raise DataError(f"expected a table at {path}, found none.")
    try:
        with path.open("rb") as stream:
            start = stream.read(_SAMPLE)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if start.startswith(GZIP):
        return _open_compressed(path, text)
    if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return peeked(path, read_parquet(path))
    if start.startswith(b"PK\x03\x04"):
        return read_workbook(path)
    for magic, what in _NO_TABLES.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what}.")
    return _open_text(path, start, text)


def _open_compressed(path: Path, text: TextFormat) -> Table:
    """Open a compressed table. The unpacked file exists until the last row was read."""
    target, folder = unpacked(path)
    try:
        table = open_table(target, text)
    except DataError as error:
        raise DataError(str(error).replace(str(target), str(path))) from error

    def rows() -> Iterator[Row]:
        with folder:
            yield from table.rows

    return replace(table, path=path, rows=rows())


def _open_text(path: Path, start: bytes, text: TextFormat) -> Table:
    """Open a table in one of the text formats."""
    suffix = path.suffix.lower()
    marked = next((mark for mark in _MARKS if start.startswith(mark)), b"")
    plain = start.removeprefix(marked).replace(b"\0", b"").decode("latin-1")
    first = plain.lstrip()[:1]
    if suffix == ".xlsx":
        raise DataError(f"expected an Excel workbook at {path}, got another format.")
    if suffix in JSON_LINES and first != "[":
        return peeked(path, read_json_lines(path, text))
    if _HTML.match(plain):
        raise DataError(f"{path} is an HTML page. Open it as a spreadsheet and save it as CSV.")
    if first == "<" and suffix not in DELIMITED:
        return peeked(path, read_xml_items(path, text.encoding))
    is_json = _JSON_START.match(plain.lstrip()) is not None
    if suffix in (".json", *JSON_LINES) or is_json:
        return peeked(path, read_json(path, text))
    stated = marked or text.encoding or utf16_without_mark(start)
    if b"\0" in start and not stated and suffix not in DELIMITED:
        raise DataError(
            f"expected a table at {path}, got a binary file (starts with {start[:8]!r}). Tables "
            "are CSV and similar text, JSON, XML feeds, Parquet and .xlsx."
        )
    return read_delimited(path, text)


def peeked(path: Path, rows: Iterator[Row]) -> Table:
    """A table with the columns of its first rows."""
    first = list(islice(rows, _PEEKED))
    columns = dict.fromkeys(name for row in first for name in row.cells)
    return Table(path=path, columns=tuple(columns), rows=chain(first, rows))
