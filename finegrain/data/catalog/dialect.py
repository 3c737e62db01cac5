"""Detects how the cells of delimited text are separated and quoted, and where its header is."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finegrain.data.catalog.header import header_index
from finegrain.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}

_RARE_SEPARATORS = {"~": "tildes", "^": "carets", "\x01": "the character U+0001", ":": "colons"}
"""Used only if no other separator divides the header, and this one divides all rows alike."""

_NAMES = {**SEPARATORS, **_RARE_SEPARATORS}
_USUAL = {".tsv": "\t", ".tab": "\t", ".psv": "|"}

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_MAX_WIDTH = 10_000
"""Most cells of a sampled row. More are not column names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The notation of a table of delimited text.

    Attributes:
        separator: The character between cells.
        quote: The character around cells that contain separators.
        skips_spaces: Whether spaces after a separator are ignored, so that a quote may follow.
        num_above: Number of lines above the column names.
        notes: Sentences about guesses.
    """

    separator: str
    quote: str = '"'
    skips_spaces: bool = False
    num_above: int = 0
    notes: tuple[str, ...] = ()

    def reader(self, lines: Iterable[str], *, strict: bool = False) -> Iterator[list[str]]:
        """Read rows of cells.

        Args:
            lines: The lines.
            strict: Whether an unmatched quote is a ``csv.Error``.
        """
        return csv.reader(
            lines,
            delimiter=self.separator,
            quotechar=self.quote,
            skipinitialspace=self.skips_spaces,
            strict=strict,
        )


def detect_dialect(sample: Sequence[str], stated: str | None, table: Path) -> Dialect:
    """The dialect of a table.

    Args:
        sample: The first lines.
        stated: The separator, if it is known.
        table: Path of the table. Its ending decides between equally good separators.

    Raises:
        DataError: ``stated`` is not one character.
    """
    if stated is not None and (len(stated) != 1 or stated in "\"'\r\n"):
        raise DataError(f"expected one character as the separator, got {stated!r}.")
    first_line = _SEPARATOR_LINE.fullmatch(sample[0]) if sample else None
    num_above = 0 if first_line is None else 1
    lines = sample[num_above:]
    known = stated or (None if first_line is None else first_line[1])
    separator, notes = (known, []) if known else _separator(lines, table)
    dialect = _quoted(lines, separator)
    starts, rows = _rows(lines, dialect)
    index = header_index(rows)
    if index:
        num_above += starts[index]
        notes.append(
            f"the column names are in line {num_above + 1}; above them is "
            f"{' '.join(filter(None, rows[0]))!r:.80}"
        )
    if dialect.quote != '"':
        notes.append("the cells are in single quotes")
    return Dialect(
        separator=separator,
        quote=dialect.quote,
        skips_spaces=dialect.skips_spaces,
        num_above=num_above,
        notes=tuple(notes),
    )


def _separator(lines: Sequence[str], table: Path) -> tuple[str, list[str]]:
    """The separator, and a note if it is not the usual one of the file's ending."""
    # Programs write tabs into .csv and commas into .tsv, so the ending only decides between equals.
    usual = _USUAL.get(table.suffix.lower(), ",")
    order = ("\t", *SEPARATORS) if table.suffix.lower() == ".tsv" else tuple(SEPARATORS)
    best = max(order, key=lambda mark: _fit(lines, mark))
    if _fit(lines, best) == (0, 0):
        best = next((mark for mark in _RARE_SEPARATORS if _divides_all(lines, mark)), best)
    return best, [] if best == usual else [f"the cells are separated by {_NAMES[best]}"]


def _divides_all(lines: Sequence[str], mark: str) -> bool:
    return _fit(lines, mark)[0] == sum(bool(line.strip()) for line in lines) > 1


def _fit(lines: Sequence[str], mark: str) -> tuple[int, int]:
    """Number of rows with as many cells as the header, and number of these cells."""
    _, rows = _rows(lines, _quoted(lines, mark))
    width = len(rows[header_index(rows)]) if rows else 0
    return (sum(len(row) == width for row in rows), width) if width > 1 else (0, 0)


def _rows(lines: Sequence[str], dialect: Dialect) -> tuple[list[int], list[list[str]]]:
    """The rows that are not blank, each with the number of lines before it."""
    reader = csv.reader(
        lines,
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        skipinitialspace=dialect.skips_spaces,
    )
    starts, rows = [], []
    start = 0
    try:
        for cells in reader:
            if len(cells) > _MAX_WIDTH:
                return [], []
            if any(map(str.strip, cells)):
                starts.append(start)
                rows.append(cells)
            start = reader.line_num
    except csv.Error:
        return [], []
    return starts, rows


def _quoted(lines: Sequence[str], separator: str) -> Dialect:
    """The dialect of a separator: its quotes, and whether spaces may precede them.

    Cells are in single quotes if no cell begins with a double quote, and in most rows as many
    cells begin with a single quote as end with one.
    """
    pieces = [[piece.strip() for piece in line.split(separator)] for line in lines if line.strip()]
    quote = '"'
    if not any(piece.startswith('"') for row in pieces for piece in row):
        counts = [_single_quotes(row) for row in pieces]
        num_quoted = sum(begins > 0 for begins, _ in counts)
        if all(begins == ends for begins, ends in counts) and 2 * num_quoted >= len(counts) - 1 > 0:
            quote = "'"
    mark = re.escape(separator)
    spaced = re.compile(rf"(?:^|{mark}) +{quote}(?=[^{quote}{mark}\r\n])")
    skips = separator != " " and any(map(spaced.search, lines))
    return Dialect(separator=separator, quote=quote, skips_spaces=skips)


def _single_quotes(pieces: Sequence[str]) -> tuple[int, int]:
    """Number of pieces that begin and that end with a single quote."""
    longer = [piece for piece in pieces if len(piece) > 1]
    return sum(p.startswith("'") for p in longer), sum(p.endswith("'") for p in longer)
