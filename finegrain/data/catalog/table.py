"""Reader of catalogues with one picture and its captions a row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finegrain.data.catalog.pictures import CatalogPictures, FindPicture
from finegrain.data.catalog.rows import TEXT_TABLES, Row, columns_of, read_rows
from finegrain.errors import DataError
from finegrain.records import Problem, Sample, Scalar, Split, pid_of

DEFAULT_SPLIT = "all"
"""Name of the only split of a table without a split column."""

CAPTION_COLUMNS = ("caption", "text", "captions", "title", "description")
"""What the column of captions is called, the likeliest first."""

_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val"}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table hold what; those of pid and split may be none."""

    image: str
    captions: tuple[str, ...]
    pid: str | None = None
    split: str | None = None

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
    fallback_encoding: str | None = None,
) -> dict[str, Split]:
    """Read a table with one picture and its captions per row.

    The ending of ``table`` tells its format: ``.csv``, ``.tsv`` or ``.txt`` (UTF-8, comma,
    semicolon or tab), ``.jsonl`` or ``.ndjson``, ``.parquet``. A bad row becomes a problem
    with its line number and the rest goes on.

    Args:
        table: The file.
        image_column: Column of picture paths, relative to the table's folder. Absolute
            paths and those that climb out are refused. A Parquet table may hold the pictures
            themselves; they are unpacked once, into a folder beside it.
        caption_columns: Columns of captions; a cell may hold a list of them where the
            format has lists. Empty ones are passed over, but a row needs one.
        pid_column: Column that tells which rows show the same product; its values are kept as
            they are. Left out, no pid is known and each row is a product of its own.
        split_column: Column that says ``train``, ``val`` or ``test``. Left out, there is
            one split, ``all``.
        image_root: Folder that the picture paths are relative to instead. Of URLs, which are
            never fetched, the file names are looked for in it.
        fallback_encoding: What the rows of a CSV are in that are not UTF-8; without it they
            are problems.

    Returns:
        The splits by name. All columns but those of image, captions and split become
        metadata; those of a CSV are numbers or booleans where every cell of the column is.
        Codes with leading zeros stay text.

    Raises:
        DataError: the table is missing or of another format, lacks a column, or has no
            good row.
        MissingExtraError: a Parquet table needs ``pyarrow``.
    """
    if isinstance(caption_columns, str) or not caption_columns:
        raise DataError(f"expected a list of caption columns, got {caption_columns!r}.")
    columns = Columns(
        image=image_column, captions=tuple(caption_columns), pid=pid_column, split=split_column
    )
    if not table.is_file():
        raise DataError(f"expected a table at {table}, found none.")
    return collect_rows(
        read_rows(table, fallback_encoding=fallback_encoding),
        columns,
        CatalogPictures(table, images_root=image_root).find,
        source=table,
    )


def collect_rows(
    rows: Iterable[Row], columns: Columns, find: FindPicture, *, source: Path
) -> dict[str, Split]:
    """Turn rows into splits; see :func:`read_catalog`.

    Raises:
        DataError: No row is good.
    """
    samples: dict[str, list[Sample]] = {}
    problems: dict[str, list[Problem]] = {}
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row.cells))
        split = DEFAULT_SPLIT
        try:
            _check_cells(row, columns)
            split = _split_name(row.cells, columns)
            sample = _read_row(row.cells, columns, find)
        except DataError as error:
            problems.setdefault(split, []).append(Problem(where=row.where, why=str(error)))
        else:
            samples.setdefault(split, []).append(sample)
    if not samples:
        if not problems:
            raise DataError(f"expected rows in {source}, found none.")
        first = next(rows[0] for rows in problems.values())
        raise DataError(
            f"expected columns {', '.join(columns.required)} and a good row in {source}; "
            f"found columns {', '.join(found) or 'none'}; {first}."
        )
    # A row too broken to tell its split is reported with the first.
    if DEFAULT_SPLIT in problems and DEFAULT_SPLIT not in samples:
        name = next(iter(samples))
        problems[name] = problems.pop(DEFAULT_SPLIT) + problems.get(name, [])
    if source.suffix.lower() in TEXT_TABLES:
        samples = _with_typed_metadata(samples, columns.pid)
    return {
        name: Split(
            name=name,
            samples=tuple(samples.get(name, ())),
            problems=tuple(problems.get(name, ())),
        )
        for name in dict.fromkeys([*samples, *problems])
    }


def caption_column(table: Path) -> str:
    """The first of `CAPTION_COLUMNS` that a table has, or the likeliest if it has none."""
    columns = columns_of(table)
    return next((name for name in CAPTION_COLUMNS if name in columns), CAPTION_COLUMNS[0])


def common_split_name(name: str) -> str:
    """``train``, ``val`` or ``test`` for the other words for them; any other as it is."""
    name = name.strip().lower()
    return _SPLIT_NAMES.get(name, name)


def _check_cells(row: Row, columns: Columns) -> None:
    if row.why is not None:
        raise DataError(row.why)
    missing = [name for name in columns.required if name not in row.cells]
    if missing:
        raise DataError(f"has no column {', '.join(map(repr, missing))}")


def _split_name(cells: Mapping[str, Any], columns: Columns) -> str:
    if columns.split is None:
        return DEFAULT_SPLIT
    name = cells[columns.split]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"has no split in column {columns.split!r}")
    return common_split_name(name)


def _read_row(cells: Mapping[str, Any], columns: Columns, find: FindPicture) -> Sample:
    cell = cells[columns.image]
    if not isinstance(cell, str | bytes | dict) or (isinstance(cell, str) and not cell.strip()):
        raise DataError(f"has no picture in column {columns.image!r}")
    image = find(cell)
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
    pid = None if columns.pid is None else pid_of(_scalar(cells[columns.pid]))
    if columns.pid is not None and pid is None:
        raise DataError(f"has no pid in column {columns.pid!r}")
    return Sample(image=image, captions=captions, pid=pid, metadata=metadata)


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
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _with_typed_metadata(
    samples: dict[str, list[Sample]], pid_column: str | None
) -> dict[str, list[Sample]]:
    everyone = [sample for rows in samples.values() for sample in rows]
    # Of several tables one may have columns that another lacks.
    names = dict.fromkeys(name for sample in everyone for name in sample.metadata)
    types = {
        name: _column_type([sample.metadata.get(name) for sample in everyone]) for name in names
    }
    return {
        name: [_with_types(sample, types, pid_column) for sample in rows]
        for name, rows in samples.items()
    }


def _with_types(
    sample: Sample, types: Mapping[str, Callable[[Any], Scalar]], pid_column: str | None
) -> Sample:
    metadata = {
        column: None if cell is None else types[column](cell)
        for column, cell in sample.metadata.items()
    }
    pid = sample.pid if pid_column not in metadata else pid_of(metadata[pid_column])
    return replace(sample, pid=pid, metadata=metadata)


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
