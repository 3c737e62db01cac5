"""Reader of Excel workbooks."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from finegrain.bounded.zip_archive import open_zip
from finegrain.data.catalog.header import has_usual_names, header_index
from finegrain.data.catalog.row import Row, Table, unambiguous
from finegrain.errors import DataError, require

MAX_UNPACKED_BYTES = 1 << 29
"""Largest size of a workbook's parts after unpacking, in bytes."""

MAX_RATIO = 100
"""Largest ratio of the sizes after and before unpacking. Workbooks have about 10."""

_ALWAYS_ALLOWED = 1 << 24  # a small workbook of equal rows may have any ratio

MAX_TAGS = 200_000
"""Most XML tags of the styles, the texts and other parts without rows. openpyxl makes an object of
each. Two more are allowed for each byte of the file."""

MAX_DIRECTORY_BYTES = 2 << 20
"""Largest size of the archive's directory: some 30,000 parts."""

_UNCOUNTED = tuple(
    f"xl/{name}"
    for name in (
        "worksheets/", "calcChain.xml", "comments", "charts/", "drawings/",
        "embeddings/", "media/", "pivotCache/", "pivotTables/", "queryTables/", "tables/",
    )
)  # fmt: skip
"""Parts with the rows, and parts that are not read."""

MAX_ROWS = 1 << 20
"""Number of rows of a sheet in Excel. openpyxl makes a row for each number that a file skips."""

MAX_CELLS = 1 << 26
"""Most cells of a sheet, with the empty ones before the last filled cell of each row."""

_ALWAYS_CELLS = 1 << 23
_CELLS_A_BYTE = 64
"""A small file may have fewer cells: as many as these and 64 for each byte."""

MAX_TEXT = 32_767
"""Most characters of a cell in Excel."""

_ALWAYS_CHARACTERS = 1 << 28
_CHARACTERS_A_BYTE = 200
"""Most characters of all cells. A text is stored once, and each cell with it counts."""

_MAX_SHEETS = 100
_PEEKED = 50
_MAX_START = 10_000
"""The table begins above this row."""

_MERGED = re.compile(rb'<mergeCell ref="([A-Z]{1,3})([0-9]{1,7}):[A-Z]{1,3}([0-9]{1,7})"')
_FORMULA = re.compile(rb"<f[ >/]")
_CHUNK = 1 << 20
_OVERLAP = 64  # more than a tag that is searched

_UNSTORED, _TOO_LONG = "\0formula", "\0long"  # no cell may have a NUL character
_REPORTED = {
    _TOO_LONG: f"longer than the {MAX_TEXT:,} characters of a cell in Excel",
    _UNSTORED: "a formula whose value is not stored; open and save the workbook in Excel",
    **{
        error: f"{error}, a formula that failed"
        for error in ("#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!")
    },
}
"""Cells that are reported and left empty."""

# openpyxl does not catch errors of the zip and XML parsers, or of missing parts
_DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    SyntaxError,
)

_Cells = tuple[Any, ...]
_Numbered = tuple[int, _Cells]


def read_workbook(path: Path) -> Table:
    """Open a sheet of an ``.xlsx``: the first with usual column names, or the first with rows.

    Titles above the column names are skipped. A formula is read as the value that is stored with
    it. The value of merged cells counts for each of their rows.

    Raises:
        DataError: The file cannot be read, is too large after unpacking, or has no rows.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl = require("openpyxl", "xlsx")
    _refuse_bomb(path)
    try:
        # read_only reads row by row; links to other workbooks are never followed
        with warnings.catch_warnings(action="ignore"):
            book, formulas = (
                openpyxl.load_workbook(path, read_only=True, data_only=values, keep_links=False)
                for values in (True, False)
            )
        size = path.stat().st_size
        starts = {sheet: _start(sheet, size) for sheet in book.worksheets[:_MAX_SHEETS]}
        sheets = [sheet for sheet, start in starts.items() if start]
        if not sheets:
            raise DataError(f"expected rows in {path}, found none.")
        chosen = next((s for s in sheets if any(map(has_usual_names, starts[s]))), sheets[0])
        part = _examined(path, chosen)
    except DataError:
        raise
    except (*_DAMAGE, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise DataError(f"expected an Excel workbook at {path}, could not read it: {error}.") from (
            error
        )
    texts = starts[chosen]
    index = header_index(texts)
    rows = _filled(chosen, size, formulas[chosen.title] if part.has_formulas else None)
    number, header = next(islice(rows, index, None))
    columns, notes = unambiguous(list(map(_name, header)))
    if index:
        above = " ".join(filter(None, texts[0]))
        notes.append(f"the column names are in row {number}; above them is {above!r:.80}")
    notes += [f"the sheet {other.title!r} is not read" for other in sheets if other is not chosen]
    return Table(
        path=path,
        columns=columns,
        rows=_rows(_with_merged(rows, part.merged), columns, path),
        notes=notes,
    )


def _refuse_bomb(path: Path) -> None:
    try:
        with open_zip(path, max_directory=MAX_DIRECTORY_BYTES) as archive:
            size = sum(part.file_size for part in archive.infolist())
            limit = min(MAX_UNPACKED_BYTES, max(_ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size))
            crowded = (
                None if size > limit else _crowded_part(archive, MAX_TAGS + 2 * path.stat().st_size)
            )
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError) as error:
        raise DataError(f"expected an Excel workbook at {path}, could not read it: {error}.") from (
            error
        )
    if size > limit:
        raise DataError(
            f"{path} has {size >> 20} MiB after unpacking, more than {limit >> 20}. Save it as CSV."
        )

    if crowded is not None:
        raise DataError(
            f"{crowded!r:.80} in {path} has far more tags than the size of the file suggests. "
            "Save it as CSV."
        )


def _crowded_part(archive: zipfile.ZipFile, max_tags: int) -> str | None:
    """A part besides those of rows that has too many tags."""
    for part in archive.infolist():
        if part.filename.startswith(_UNCOUNTED):
            continue
        num_tags = 0
        with archive.open(part) as stream:
            while chunk := stream.read(_CHUNK):
                num_tags += chunk.count(b"<")
                if num_tags > max_tags:
                    return part.filename
    return None


@dataclass(slots=True)
class _Part:
    """What the XML of a sheet says besides its values.

    Attributes:
        has_formulas: Whether a cell has a formula.
        merged: The first row of merged cells to their columns, from 0, and last rows.
    """

    has_formulas: bool = False
    merged: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


def _examined(path: Path, sheet: Any) -> _Part:
    """Search the XML of a sheet, as openpyxl does not report these when it reads row by row."""
    column_number = require("openpyxl.utils", "xlsx").column_index_from_string
    part = _Part()
    seen = b""
    with zipfile.ZipFile(path) as archive, archive.open(sheet._worksheet_path) as stream:
        while chunk := stream.read(_CHUNK):
            text = seen + chunk
            part.has_formulas = part.has_formulas or _FORMULA.search(text) is not None
            end = 0
            for match in _MERGED.finditer(text):
                end = match.end()
                place = (column_number(match[1].decode()) - 1, int(match[3]))
                part.merged.setdefault(int(match[2]), []).append(place)
            seen = text[max(end, len(text) - _OVERLAP) :]
    return part


def _start(sheet: Any, size: int) -> list[list[str]]:
    """The texts of the first rows."""
    rows = islice(_filled(sheet, size, last=_MAX_START), _PEEKED)
    return [[_name(cell) for cell in cells] for _, cells in rows]


def _filled(
    sheet: Any, size: int, formulas: Any = None, *, last: int = MAX_ROWS
) -> Iterator[_Numbered]:
    """Yield the rows that are not empty with their numbers, from 1.

    Args:
        sheet: The sheet with values.
        size: Size of the file in bytes.
        formulas: The same sheet with formulas, if it has some. ``_UNSTORED`` then stands for the
            value of a formula that the file does not have.
        last: Number of the last row to read.

    Raises:
        DataError: The sheet has too many cells or characters.
    """
    most_cells = min(MAX_CELLS, _ALWAYS_CELLS + _CELLS_A_BYTE * size)
    most_characters = max(_ALWAYS_CHARACTERS, _CHARACTERS_A_BYTE * size)
    num_cells = num_characters = 0
    other = iter(()) if formulas is None else _all_rows(formulas, last)
    for number, cells in enumerate(_all_rows(sheet, last), start=1):
        num_cells += len(cells)
        if num_cells > most_cells:
            raise DataError(
                f"sheet {sheet.title!r} has more than {most_cells:,} cells with the empty ones. "
                "Delete its empty columns, or save it as CSV."
            )
        cells = tuple(
            _UNSTORED if cell is None and formula is not None else _bounded(cell)
            for cell, formula in zip_longest(cells, next(other, ()))
        )
        num_characters += sum(len(cell) for cell in cells if isinstance(cell, str))
        if num_characters > most_characters:
            raise DataError(
                f"sheet {sheet.title!r} has more than {most_characters:,} characters, far more "
                "than its size suggests. Save it as CSV."
            )
        if any(cell is not None and str(cell).strip() for cell in cells):
            yield number, cells


def _bounded(cell: Any) -> Any:
    return _TOO_LONG if isinstance(cell, str) and len(cell) > MAX_TEXT else cell


def _all_rows(sheet: Any, last: int) -> Iterator[_Cells]:
    sheet.reset_dimensions()  # a file may state a wrong size
    rows: Iterator[_Cells] = sheet.iter_rows(max_row=last, values_only=True)
    return rows


def _with_merged(
    rows: Iterator[_Numbered], merged: Mapping[int, Sequence[tuple[int, int]]]
) -> Iterator[_Numbered]:
    """Fill the rows below the first of merged cells with its value."""
    active: dict[int, tuple[int, Any]] = {}
    num_filled = 0
    for number, cells in rows:
        filled = list(cells)
        num_filled += len(active)
        if num_filled > MAX_CELLS:
            raise DataError(f"more than {MAX_CELLS:,} cells are merged. Save it as CSV.")
        for column, (last, value) in active.items():
            if number <= last:
                filled += [None] * (column + 1 - len(filled))
                filled[column] = value if filled[column] is None else filled[column]
        active = {column: span for column, span in active.items() if number < span[0]}
        for column, last in merged.get(number, ()):
            if last > number and column < len(cells):
                active[column] = (last, cells[column])
        yield number, tuple(filled)


def _rows(rows: Iterator[_Numbered], columns: tuple[str, ...], path: Path) -> Iterator[Row]:
    try:
        for number, cells in rows:
            where = f"{path.name}:{number}"
            if any(cell is not None for cell in cells[len(columns) :]):
                yield Row(where, {}, f"has more cells than the {len(columns)} columns")
                continue
            row = dict(zip_longest(columns, cells[: len(columns)]))
            odd = [
                f"{name!r} is {_REPORTED[cell]}; left empty"
                for name, cell in row.items()
                if isinstance(cell, str) and cell in _REPORTED
            ]
            values = {name: _value(cell) for name, cell in row.items()}
            yield Row(where, values, odd=tuple(odd))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def _name(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _value(cell: Any) -> Any:
    if isinstance(cell, str) and cell in _REPORTED:
        return None
    return cell.isoformat() if isinstance(cell, datetime | date | time) else cell
