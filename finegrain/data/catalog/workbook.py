"""Reader of Excel workbooks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from finegrain.data.catalog.row import Row, Table, unambiguous
from finegrain.errors import DataError, require

MAX_UNPACKED_BYTES = 1 << 29
"""Largest size of a workbook's parts after unpacking, in bytes."""


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


def read_workbook(path: Path) -> Table:
    """Open the first sheet of an ``.xlsx`` that is not empty. Its first row has the columns.

    A formula is read as the value that is stored with it.

    Raises:
        DataError: The file cannot be read, is too large after unpacking, or has no rows.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl = require("openpyxl", "xlsx")
    _refuse_bomb(path)
    try:
        # read_only reads row by row; links to other workbooks are never followed
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        sheets = [sheet for sheet in book.worksheets if _first_row(sheet) is not None]
    except _DAMAGE as error:
        raise DataError(f"expected an Excel workbook at {path}, could not read it: {error}.") from (
            error
        )
    if not sheets:
        raise DataError(f"expected rows in {path}, found none.")
    sheet, *others = sheets
    start = _first_row(sheet)
    assert start is not None
    columns, notes = unambiguous([_name(cell) for cell in start[1]])
    notes += [f"the sheet {other.title!r} is not read" for other in others]
    rows = _rows(sheet, start[0], columns, path)
    return Table(path=path, columns=columns, rows=rows, notes=notes)


def _refuse_bomb(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"expected an Excel workbook at {path}, could not read it: {error}.") from (
            error
        )
    if size > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path} has {size >> 20} MiB after unpacking, more than {MAX_UNPACKED_BYTES >> 20}. "
            "Save it as CSV."
        )


def _first_row(sheet: Any) -> tuple[int, tuple[Any, ...]] | None:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            return number, cells
    return None


def _rows(sheet: Any, header: int, columns: tuple[str, ...], path: Path) -> Iterator[Row]:
    try:
        for number, cells in enumerate(
            sheet.iter_rows(min_row=header + 1, values_only=True), start=header + 1
        ):
            if all(cell is None for cell in cells):
                continue
            where = f"{path.name}:{number}"
            if any(cell is not None for cell in cells[len(columns) :]):
                yield Row(where, {}, f"has more cells than the {len(columns)} columns")
                continue
            padded = [*cells[: len(columns)], *[None] * (len(columns) - len(cells))]
            yield Row(where, dict(zip(columns, map(_value, padded), strict=True)))
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def _name(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _value(cell: Any) -> Any:
    return cell.isoformat() if isinstance(cell, datetime | date | time) else cell
