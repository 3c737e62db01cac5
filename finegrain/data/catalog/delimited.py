"""Reader of delimited text: CSV, TSV and similar formats."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from finegrain.data.catalog.dialect import Dialect, detect_dialect
from finegrain.data.catalog.encoding import Encoding, find_encoding
from finegrain.data.catalog.row import Row, Table, TextFormat, unambiguous
from finegrain.errors import DataError

_SAMPLED_LINES = 50
_SAMPLED_CHARACTERS = 1 << 16
_MAX_ROW = 1 << 20
"""Longest row, in characters."""

_MAX_REREAD = 1 << 24
"""Most characters that are read again after rows with unmatched quotes."""

_ENDING = re.compile(r"\.[A-Za-z0-9]{2,5}$")


def read_delimited(table: Path, text: TextFormat) -> Table:
    """Open a table of delimited text.

    A first line such as ``sep=;`` states the separator. Otherwise it is the one of comma,
    semicolon, tab and pipe that divides most of the first rows into as many cells as the header.
    If none of these divides the header, it is a tilde, caret, U+0001 or colon that divides every
    row. Titles above the column names are skipped. Cells may be in double or single quotes, and
    then contain line ends. A row with unmatched quotes is reported with the line where it begins,
    and reading continues at the next line.

    Raises:
        DataError: The file cannot be opened, the encoding is unknown, or the header cannot be
            decoded.
    """
    encoding = find_encoding(table, stated=text.encoding, fallback=text.fallback_encoding)
    lines = _Lines(encoding.open(table))
    sample = lines.peek()
    dialect = detect_dialect(sample, text.separator, table)
    for _ in range(dialect.num_above):
        next(lines)
    notes = [*dialect.notes]
    if encoding.is_guessed:
        notes.append(f"the text is in {encoding.name}")
    records = _records(lines, dialect)
    columns, more = _header(records, lines, encoding, table)
    rows = _rows(records, lines, columns, encoding, table)
    return Table(path=table, columns=columns, rows=rows, is_text=True, notes=notes + more)


def _header(
    records: Iterator[_Record], lines: _Lines, encoding: Encoding, table: Path
) -> tuple[tuple[str, ...], list[str]]:
    """The names of the columns, and notes about names that were changed."""
    line, cells, why = next(records, (0, [], lines.damage))
    try:
        if why is not None:
            raise DataError(why)
        columns, notes = unambiguous(encoding.checked(cells))
    except DataError as error:
        raise DataError(
            f"expected column names in line {line} of {table}, which {error}."
        ) from error
    lines.width = len(columns)
    return columns, notes


def _rows(
    records: Iterator[_Record],
    lines: _Lines,
    columns: tuple[str, ...],
    encoding: Encoding,
    table: Path,
) -> Iterator[Row]:
    for line, cells, why in records:
        where = f"{table.name}:{line}"
        try:
            if why is not None:
                raise DataError(why)
            surplus = cells[len(columns) :]
            if len(cells) < len(columns) or any(map(str.strip, surplus)):
                raise DataError(f"has {len(cells)} cells, expected {len(columns)}")
            cells = encoding.checked(cells[: len(columns)])
        except DataError as error:
            yield Row(where, {}, str(error))
        else:
            yield Row(where, dict(zip(columns, cells, strict=True)))
    if lines.damage is not None:
        yield Row(f"{table.name}:{lines.number}", {}, lines.damage)


_Record = tuple[int, list[str], str | None]
"""The line where a row begins, its cells, and the reason why it cannot be read."""


def _records(lines: _Lines, dialect: Dialect) -> Iterator[_Record]:
    """Yield the rows that are not empty."""
    reader = dialect.reader(lines, strict=True)
    while True:
        line = lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = _quotes_or(error)
        else:
            if not any(map(str.strip, cells)):
                continue
            if not lines.swallowed_rows(cells, dialect):
                yield line, cells, None
                continue
            why = "has a quote that is closed in another row, or not at all"
        lines.take_back()
        yield line, [], why


def _quotes_or(error: csv.Error) -> str:
    """A description of the error in a row."""
    if "unexpected end of data" in str(error):
        return "has a quote that is never closed"
    if "expected after" in str(error):
        return "has a quote that does not match; a quote inside quotes is written twice"
    return f"cannot be read: {error}"


class _Lines:
    """The lines of a text. The lines of a failed row can be read again.

    Attributes:
        number: Number of the next line, from 1.
        width: Number of cells per row, once it is known.
        damage: Why nothing can be read from ``number`` on.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        self._taken: list[str] = []
        self._length = 0
        self._read = 0
        self._reread = 0
        self.number = 1
        self.width = 0
        self.damage: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else self._line()
        if not line:
            self._stream.close()
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        self._length += len(line)
        if self._length > _MAX_ROW:
            raise csv.Error(f"it is longer than {_MAX_ROW:,} characters")
        return line

    def peek(self) -> list[str]:
        """The first lines, without consuming them."""
        sample = list(islice(iter(self._line, ""), _SAMPLED_LINES))
        self._waiting = sample[::-1]
        length, short = 0, []
        for line in sample:
            length += len(line)
            if length > _SAMPLED_CHARACTERS:
                break
            short.append(line)
        return short or sample[:1]

    def begin(self) -> int:
        """Begin a row, and return the number of its line."""
        self._taken, self._length = [], 0
        return self.number

    def take_back(self) -> None:
        """Read all lines of the row again, except its first.

        Raises:
            DataError: More characters were read again than a valid table needs.
        """
        again = self._taken[1:]
        self._waiting += reversed(again)
        self.number -= len(again)
        self._reread += sum(map(len, again))
        if self._reread > _MAX_REREAD + self._read:
            raise DataError(
                f"line {self.number - 1}: too many rows have quotes that do not match. Write the "
                "table with each quote inside a cell doubled."
            )

    def swallowed_rows(self, cells: list[str], dialect: Dialect) -> bool:
        """Whether a lost quote joined a later row to this one.

        Such a line has as many cells as the header, and a file name of the same kind in the same
        cell. If the present row has another number of cells, the number of cells is enough.
        """
        if len(self._taken) < 2 or self.width < 2:
            return False
        try:
            first, *later = (next(dialect.reader([line])) for line in self._taken)
        except csv.Error:  # a cell that is too long on its own
            return False
        rows = [row for row in later if len(row) == self.width]
        if len(cells) != self.width:
            return bool(rows)
        endings = [_ENDING.findall(cell.strip()) for cell in first]
        return any(
            end and end == _ENDING.findall(cell.strip())
            for row in rows
            for end, cell in zip(endings, row, strict=False)
        )

    def _line(self) -> str:
        """A line of at most ``_MAX_ROW`` characters. A longer line is cut and reported as bad."""
        try:
            line = part = self._stream.readline(_MAX_ROW + 1)
            while len(part) > _MAX_ROW and not part.endswith(("\r", "\n")):
                part = self._stream.readline(_MAX_ROW + 1)
        except UnicodeDecodeError as error:
            self.damage = f"is not {error.encoding} from here on, so the rest is not read"
            return ""
        except ValueError:  # the stream has ended before and is closed
            return ""
        self._read += len(line)
        return line
