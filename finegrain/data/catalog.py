"""Reader of product catalogues: a CSV, JSON-lines or Parquet table beside its pictures."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.data.pictures import PictureFolder
from finegrain.errors import DataError, require
from finegrain.records import Problem, Sample, Scalar, Split

DEFAULT_SPLIT = "all"
"""Name of the only split of a table without a split column."""

_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val"}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of one row by column, and where it stands; or why it cannot be read."""

    where: str
    cells: Mapping[str, Any]
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    image: str
    captions: tuple[str, ...]
    pid: str | None
    split: str | None

    @property
    def required(self) -> tuple[str, ...]:
        optional = (self.pid, self.split)
        return (self.image, *self.captions, *(name for name in optional if name is not None))


def read_catalog(
    table: Path,
    *,
    image_column: str = "image",
    caption_columns: Sequence[str] = ("caption",),
    pid_column: str | None = None,
    split_column: str | None = None,
    image_root: Path | None = None,
) -> dict[str, Split]:
    """Read a table with one picture and its captions per row.

    The ending of ``table`` tells its format: ``.csv``, ``.tsv`` or ``.txt`` (UTF-8, comma,
    semicolon or tab), ``.jsonl`` or ``.ndjson``, ``.parquet``. A bad row becomes a problem
    with its line number and the rest goes on.

    Args:
        table: The file.
        image_column: Column of picture paths, relative to the table's folder. Absolute
            paths and those that climb out are refused.
        caption_columns: Columns of captions; a cell may hold a list of them where the
            format has lists. Empty ones are passed over, but a row needs one.
        pid_column: Column that tells which rows show the same product; its values are
            numbered by first appearance. Left out, each row is a product of its own.
        split_column: Column that says ``train``, ``val`` or ``test``. Left out, there is
            one split, ``all``.
        image_root: Folder that the picture paths are relative to instead.

    Returns:
        The splits by name. All columns but those of image, captions and split become
        metadata; those of a CSV are numbers or booleans where every cell of the column is.
        Codes with leading zeros stay text.

    Raises:
        DataError: the table is missing or of another format, lacks a column, or has no
            good row.
        MissingExtraError: a Parquet table needs ``pyarrow``.
    """
    columns = _Columns(
        image=image_column, captions=tuple(caption_columns), pid=pid_column, split=split_column
    )
    if isinstance(caption_columns, str) or not caption_columns:
        raise DataError(f"expected a list of caption columns, got {caption_columns!r}.")
    if not table.is_file():
        raise DataError(f"expected a table at {table}, found none.")
    folder = PictureFolder(image_root or table.parent)
    samples: dict[str, list[Sample]] = {}
    problems: dict[str, list[Problem]] = {}
    pids: dict[Any, int] = {}
    found: dict[str, None] = {}
    for row in _reader(table)(table):
        found.update(dict.fromkeys(row.cells))
        split = DEFAULT_SPLIT
        try:
            _check_cells(row, columns)
            split = _split_name(row.cells, columns)
            sample = _read_row(row.cells, columns, folder, pids)
        except DataError as error:
            problems.setdefault(split, []).append(Problem(where=row.where, why=str(error)))
        else:
            samples.setdefault(split, []).append(sample)
    if not samples:
        if not problems:
            raise DataError(f"expected rows in {table}, found none.")
        first = next(rows[0] for rows in problems.values())
        raise DataError(
            f"expected columns {', '.join(columns.required)} and a good row in {table}; "
            f"found columns {', '.join(found) or 'none'}; {first}."
        )
    # A row too broken to tell its split is reported with the first.
    if DEFAULT_SPLIT in problems and DEFAULT_SPLIT not in samples:
        name = next(iter(samples))
        problems[name] = problems.pop(DEFAULT_SPLIT) + problems.get(name, [])
    if _reader(table) is _read_csv:
        samples = _with_typed_metadata(samples)
    return {
        name: Split(
            name=name,
            samples=tuple(samples.get(name, ())),
            problems=tuple(problems.get(name, ())),
        )
        for name in dict.fromkeys([*samples, *problems])
    }


def _reader(table: Path) -> Callable[[Path], Iterator[_Row]]:
    readers: dict[str, Callable[[Path], Iterator[_Row]]] = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".txt": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
    }
    if table.suffix.lower() not in readers:
        raise DataError(f"expected a table ending in {', '.join(readers)}, got {table.name!r}.")
    return readers[table.suffix.lower()]


def _read_csv(table: Path) -> Iterator[_Row]:
    # surrogateescape lets a row with bytes of another encoding fail alone
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        first = stream.readline()
        stream.seek(0)
        rows = csv.reader(stream, delimiter=max(",;\t", key=first.count))
        try:
            header = [name.strip() for name in next(rows, [])]
        except csv.Error as error:
            raise DataError(f"expected column names in {table}, got {error}.") from error
        if len(set(header)) < len(header):
            raise DataError(f"expected different column names in {table}, got {header}.")
        while True:
            where = f"{table.name}:{rows.line_num + 1}"
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Row(where, {}, f"cannot be read: {error}")
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield _Row(where, {}, f"has {len(cells)} cells, expected {len(header)}")
            elif any("\udc80" <= character <= "\udcff" for character in "".join(cells)):
                yield _Row(where, {}, "holds bytes that are not UTF-8")
            else:
                yield _Row(where, dict(zip(header, cells, strict=True)))


def _read_json_lines(table: Path) -> Iterator[_Row]:
    with table.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            where = f"{table.name}:{number}"
            try:
                cells = json.loads(line.removeprefix(b"\xef\xbb\xbf")) if line.strip() else None
            except (ValueError, RecursionError) as error:
                yield _Row(where, {}, f"is not JSON: {error}")
                continue
            if isinstance(cells, dict):
                yield _Row(where, cells)
            elif line.strip():
                yield _Row(where, {}, f"is not a JSON object but {type(cells).__name__}")


def _read_parquet(table: Path) -> Iterator[_Row]:
    pyarrow = require("pyarrow", "train")
    parquet = require("pyarrow.parquet", "train")
    number = 0
    try:
        with parquet.ParquetFile(table) as file:
            for batch in file.iter_batches():
                for cells in batch.to_pylist():
                    number += 1
                    yield _Row(f"{table.name} row {number}", cells)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a Parquet table at {table}, could not read it: {error}.") from (
            error
        )


def _check_cells(row: _Row, columns: _Columns) -> None:
    if row.why is not None:
        raise DataError(row.why)
    missing = [name for name in columns.required if name not in row.cells]
    if missing:
        raise DataError(f"has no column {', '.join(map(repr, missing))}")


def _split_name(cells: Mapping[str, Any], columns: _Columns) -> str:
    if columns.split is None:
        return DEFAULT_SPLIT
    name = cells[columns.split]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"has no split in column {columns.split!r}")
    name = name.strip().lower()
    return _SPLIT_NAMES.get(name, name)


def _read_row(
    cells: Mapping[str, Any], columns: _Columns, folder: PictureFolder, pids: dict[Any, int]
) -> Sample:
    relative = cells[columns.image]
    if not isinstance(relative, str) or not relative.strip():
        raise DataError(f"has no picture in column {columns.image!r}")
    image = folder.find(relative.strip())
    captions = tuple(
        caption for column in columns.captions for caption in _captions(cells[column], column)
    )
    if not captions:
        raise DataError(f"has no caption in {', '.join(map(repr, columns.captions))}")
    metadata = {
        name: _scalar(value)
        for name, value in cells.items()
        if name not in (columns.image, columns.split, *columns.captions)
    }
    key: Scalar = len(pids)
    if columns.pid is not None:
        key = metadata[columns.pid]
        if key is None:
            raise DataError(f"has no pid in column {columns.pid!r}")
    return Sample(
        image=image, captions=captions, pid=pids.setdefault(key, len(pids)), metadata=metadata
    )


def _captions(cell: Any, column: str) -> Iterator[str]:
    for caption in cell if isinstance(cell, list) else [cell]:
        if caption is not None and not isinstance(caption, str):
            raise DataError(f"has something else than text in {column!r}: {caption!r:.60}")
        if caption and caption.strip():
            yield caption.strip()


def _scalar(value: Any) -> Scalar:
    """Return a cell as metadata can hold it: blanks and NaN as None, dates as text."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _with_typed_metadata(samples: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    everyone = [sample for rows in samples.values() for sample in rows]
    types = {
        column: _column_type([sample.metadata[column] for sample in everyone])
        for column in everyone[0].metadata
    }
    return {
        name: [
            Sample(
                image=sample.image,
                captions=sample.captions,
                pid=sample.pid,
                metadata={
                    column: None if cell is None else types[column](cell)
                    for column, cell in sample.metadata.items()
                },
            )
            for sample in rows
        ]
        for name, rows in samples.items()
    }


def _column_type(cells: Sequence[Scalar]) -> Callable[[Any], Scalar]:
    texts = [str(cell) for cell in cells if cell is not None]
    if all(text.lower() in ("true", "false") for text in texts):
        return lambda text: text.lower() == "true"
    if all(_INTEGER.fullmatch(text) for text in texts):
        return int
    # An article number such as 00123 is a name, not a quantity.
    numbers = all(_NUMBER.fullmatch(text) and math.isfinite(float(text)) for text in texts)
    if numbers and not any(_LEADING_ZERO.fullmatch(text) for text in texts):
        return float
    return str
