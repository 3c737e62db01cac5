"""Reader of tables with a product in each row: pictures, captions and further columns."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finegrain.data.catalog.columns import (
    PID,
    TIME,
    TRACK,
    Columns,
    kept_name,
)
from finegrain.data.catalog.header import value_in_header
from finegrain.data.catalog.moments import AmbiguousTimeError, date_order, parse_time
from finegrain.data.catalog.pictures import CatalogPictures
from finegrain.data.catalog.price_columns import with_prices
from finegrain.data.catalog.roles import Roles
from finegrain.data.catalog.row import Row, Table, TextFormat
from finegrain.data.catalog.rows import open_table
from finegrain.data.catalog.values import Metadata, name_of, of_one_type, scalar
from finegrain.data.pictures import MissingPictureError, UnreadablePictureError
from finegrain.errors import DataError, FinegrainError, ImageError, did_you_mean
from finegrain.records import Pid, Problem, ProblemKind, Sample, Scalar, Split, pid_of

DEFAULT_SPLIT = "all"
"""Name of the only split of a table without a split column."""

_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val"}


def read_catalog(
    table: Path,
    *,
    image_column: str = "image",
    caption_columns: Sequence[str] = ("caption",),
    pid_column: str | None = None,
    split_column: str | None = None,
    image_root: Path | None = None,
    image_pattern: str | None = None,
    encoding: str | None = None,
    fallback_encoding: str | None = None,
    separator: str | None = None,
) -> dict[str, Split]:
    """Read a table with the pictures and captions of a product in each row.

    A bad row becomes a problem with its line number, and reading continues. For the formats see
    :func:`~finegrain.data.catalog.rows.open_table`.

    Args:
        table: The file.
        image_column: Column of picture paths, relative to the table's folder. Paths out of the
            folder are rejected. A Parquet table may contain the pictures; they are unpacked once
            into a folder beside it. A cell may name several pictures, as a list or between commas,
            semicolons, pipes or blanks.
        caption_columns: Columns of captions. A cell may be a list in formats that have lists.
            Empty captions are ignored, but a row needs one caption.
        pid_column: Column whose value is the same for rows of one product. The values are not
            changed. Without it, pids are unknown and each row is a product.
        split_column: Column with ``train``, ``val`` or ``test``. Without it, there is one split,
            ``all``.
        image_root: Folder that picture paths are relative to, instead of the table's folder. File
            names of URLs are searched in it; nothing is downloaded.
        image_pattern: Path of a row's picture with columns in braces, such as
            ``images/{id}.jpg``, instead of ``image_column``.
        encoding: Encoding of a text file.
        fallback_encoding: Encoding of a text file that is not UTF-8.
        separator: The character between the cells of a text table.

    Returns:
        The splits by name. All columns except those of pictures, captions and splits become
        metadata. A column of a CSV becomes numbers or booleans if all its cells are. Codes with
        leading zeros and numbers that would lose digits stay text. A gallery uses the columns
        ``camera``, ``time`` and ``track`` for its entries of these names.

    Raises:
        DataError: The table is missing or has another format, lacks a column, or has no valid
            row.
        MissingExtraError: ``pyarrow`` for Parquet or ``openpyxl`` for Excel is not installed.
    """
    if isinstance(caption_columns, str) or not caption_columns:
        raise DataError(f"expected a list of caption columns, got {caption_columns!r}.")
    text = TextFormat(encoding=encoding, fallback_encoding=fallback_encoding, separator=separator)
    opened = open_table(table, text)
    roles = Roles(
        image=image_column,
        pattern=image_pattern,
        captions=tuple(caption_columns),
        pid=pid_column,
        split=split_column,
    )
    pictures = CatalogPictures(table, images_root=image_root, check=False)
    return read_table(opened, roles.in_table(opened), pictures)


@dataclass(slots=True)
class _Part:
    """The samples of a split during reading, the rows of these, and the problems."""

    samples: list[Sample] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_table(
    table: Table, columns: Columns, pictures: CatalogPictures, *, for_search: bool = False
) -> dict[str, Split]:
    """Turn the rows of a table into splits; see :func:`read_catalog`.

    Args:
        table: The table.
        columns: The roles of its columns.
        pictures: Finds the pictures of a cell.
        for_search: Whether a picture is used only with the first row that shows it.

    Raises:
        DataError: No row is valid.
    """
    parts: dict[str, _Part] = {}
    names: dict[str, None] = dict.fromkeys(table.columns)
    shown: dict[Path, str] = {}
    for row in table.rows:
        names.update(dict.fromkeys(row.cells))
        split = DEFAULT_SPLIT
        try:
            _check_cells(row, columns)
            split = _split_name(row.cells, columns)
            samples, problems = _read_row(row, columns, pictures)
        except DataError as error:
            samples, problems = [], [problem_of(row.where, error)]
        part = parts.setdefault(split, _Part())
        for sample in samples:
            where = shown.setdefault(sample.image, row.where)
            if where == row.where or not for_search:
                part.samples.append(sample)
                part.places.append(row.where)
            else:
                problems.append(shown_before(row.where, sample.image, where))
        part.problems += problems
    if not any(part.samples for part in parts.values()):
        raise _nothing_good(table, columns, tuple(names), parts)
    _report_with_the_first(parts)
    _parse_times(parts, columns, for_search=for_search)
    _convert_metadata(parts, is_text=table.is_text)
    return {
        name: Split(
            name=name,
            samples=tuple(part.samples),
            problems=tuple(part.problems),
            notes=tuple(f"{table.path.name}: {note}" for note in table.notes),
        )
        for name, part in parts.items()
    }


def common_split_name(name: str) -> str:
    """``train``, ``val`` or ``test`` for synonyms such as ``valid``; other names are unchanged."""
    name = name.strip().lower()
    return _SPLIT_NAMES.get(name, name)


def problem_of(where: str, error: FinegrainError) -> Problem:
    """The problem of a row that was left out because of an error."""
    if isinstance(error, MissingPictureError):
        kind = ProblemKind.MISSING
    elif isinstance(error, UnreadablePictureError | ImageError):
        kind = ProblemKind.PICTURE
    else:
        kind = ProblemKind.ROW
    return Problem(where=where, why=str(error), kind=kind)


def left_empty(row: Row) -> list[Problem]:
    """The problems of single cells that a reader left empty."""
    return [Problem(where=row.where, why=why, kind=ProblemKind.VALUE) for why in row.odd]


def shown_before(where: str, image: Path, first: str) -> Problem:
    """The problem of a row whose picture an earlier row shows."""
    why = f"shows {image.name!r}, which {first} shows already; a gallery has each picture once"
    return Problem(where=where, why=why, kind=ProblemKind.REPEATED)


def _check_cells(row: Row, columns: Columns) -> None:
    if row.invalid is not None:
        raise DataError(row.invalid)
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


def _read_row(
    row: Row, columns: Columns, pictures: CatalogPictures
) -> tuple[list[Sample], list[Problem]]:
    """The samples of a row, and its problems.

    Raises:
        DataError: The row has no valid sample.
    """
    cells = row.cells
    images, errors = pictures.find_all(_picture_cell(cells, columns))
    if not images:
        raise errors[0]
    problems = [problem_of(row.where, error) for error in errors]
    captions = tuple(
        caption for column in columns.captions for caption in _captions(cells.get(column), column)
    )
    if not captions and columns.needs_caption:
        raise DataError(f"has no caption in {', '.join(map(repr, columns.captions))}")
    pid = None if columns.pid is None else scalar(cells.get(columns.pid))
    if pid is None and columns.pid not in (None, PID):
        raise DataError(f"has no pid in column {columns.pid!r}")
    if pid is None and len(images) > 1:
        pid = os.path.realpath(images[0])  # all pictures of a row show the same product
    odd = left_empty(row)
    odd += [
        Problem(where=row.where, why=f"{name!r} is infinite; left empty", kind=ProblemKind.VALUE)
        for name, value in cells.items()
        if isinstance(value, float) and math.isinf(value)
    ]
    odd += [
        Problem(where=row.where, why=f"{name!r} is binary; left empty", kind=ProblemKind.VALUE)
        for name, value in cells.items()
        if isinstance(value, bytes) and name not in columns.consumed and scalar(value) is None
    ]
    metadata = {
        kept_name(name): scalar(value)
        for name, value in cells.items()
        if name not in columns.consumed and not (name == PID == columns.pid)
    }
    samples = [
        Sample(
            image=image,
            captions=captions,
            pid=pid_of(pid),
            camera=None if columns.camera is None else name_of(cells.get(columns.camera)),
            metadata={**metadata, **_time_and_track(cells, columns)},
        )
        for image in images
    ]
    return samples, problems + odd


def _picture_cell(cells: Mapping[str, Any], columns: Columns) -> Any:
    if columns.pattern is not None:
        return columns.pattern.path(cells)
    assert columns.image is not None
    cell = cells[columns.image]
    if cell is None or (isinstance(cell, str) and not cell.strip()) or cell == []:
        raise DataError(f"has no picture in column {columns.image!r}")
    return cell


def _captions(cell: Any, column: str) -> Iterator[str]:
    for caption in cell if isinstance(cell, list) else [cell]:
        if caption is not None and not isinstance(caption, str):
            raise DataError(f"has something else than text in {column!r}: {caption!r:.60}")
        if caption and caption.strip():
            yield caption.strip()


def _time_and_track(cells: Mapping[str, Any], columns: Columns) -> dict[str, Scalar]:
    """The track of a row, and the text of its time; see :func:`_parse_times`."""
    known: dict[str, Scalar] = {}
    if columns.track is not None:
        known[TRACK] = name_of(cells.get(columns.track))
    time = None if columns.time is None else scalar(cells.get(columns.time))
    return known if time is None else {**known, TIME: time}


def _parse_times(parts: Mapping[str, _Part], columns: Columns, *, for_search: bool) -> None:
    """Parse the times of all rows. An invalid time is reported and left empty.

    Raises:
        AmbiguousTimeError: A date of a table for search may be two dates.
    """
    samples = [sample for part in parts.values() for sample in part.samples]
    order = date_order(sample.metadata[TIME] for sample in samples if TIME in sample.metadata)
    for part in parts.values():
        reports: dict[Problem, None] = {}  # once for all pictures of a row
        for index, (sample, where) in enumerate(zip(part.samples, part.places, strict=True)):
            metadata = dict(sample.metadata)
            if (cell := metadata.pop(TIME, None)) is None:
                continue
            try:
                metadata[TIME] = parse_time(cell, columns.time_format, order=order)
            except DataError as error:
                if for_search and isinstance(error, AmbiguousTimeError):
                    raise AmbiguousTimeError(f"{where}: {error}") from None
                why = f"{error}; kept without a time"
                reports[Problem(where=where, why=why, kind=ProblemKind.VALUE)] = None
            part.samples[index] = replace(sample, metadata=metadata)
        part.problems += reports


def _nothing_good(
    table: Table, columns: Columns, names: Sequence[str], parts: Mapping[str, _Part]
) -> DataError:
    problems = [problem for part in parts.values() for problem in part.problems]
    if not problems:
        return DataError(f"expected rows in {table.path}, found none.")
    if picture := value_in_header(table.columns):
        return DataError(
            f"expected column names in the first row of {table.path}, got {picture!r:.80}. Write a "
            "row such as image,caption above it."
        )
    missing = [name for name in columns.required if name not in names]
    questions = "".join(did_you_mean(name, names) for name in missing)
    return DataError(
        f"expected columns {', '.join(columns.required)} and a good row in {table.path}; found "
        f"columns {', '.join(names) or 'none'}; {problems[0]}.{questions}"
        f"{_column_advice(columns, missing)}"
    )


def _column_advice(columns: Columns, missing: Sequence[str]) -> str:
    """How to name the columns of pictures and of captions, as the end of a message."""
    options = []
    if columns.image in missing:
        options.append("--image-column NAME, in a recipe --set data.image_column=NAME")
    if set(columns.captions).intersection(missing):
        options.append("--caption-column NAME, in a recipe --set 'data.caption_columns=[\"NAME\"]'")
    return f" Name the column by {'; and by '.join(options)}." if options else ""


def _report_with_the_first(parts: dict[str, _Part]) -> None:
    """Move the problems of rows without a readable split to the first split."""
    if DEFAULT_SPLIT in parts and not parts[DEFAULT_SPLIT].samples:
        homeless = parts.pop(DEFAULT_SPLIT).problems
        first = next(part for part in parts.values() if part.samples)
        first.problems = homeless + first.problems


def _convert_metadata(parts: Mapping[str, _Part], *, is_text: bool) -> None:
    """Give each column the same type in all splits, and convert pids with their column."""
    samples = [sample for part in parts.values() for sample in part.samples]
    typed, odd = with_prices(
        of_one_type([_to_convert(sample) for sample in samples], is_text=is_text)
    )
    place = 0
    for part in parts.values():
        reports: dict[Problem, None] = {}  # once for all pictures of a row
        for index, (sample, where) in enumerate(zip(part.samples, part.places, strict=True)):
            part.samples[index] = _converted(sample, typed[place])
            for why in odd.get(place, ()):
                reports[Problem(where=where, why=why, kind=ProblemKind.VALUE)] = None
            place += 1
        part.problems += reports


_PID_CELL = ""
"""The name of the pid's cell, which no column can have."""


def _to_convert(sample: Sample) -> Metadata:
    cells = {name: cell for name, cell in sample.metadata.items() if name not in (TIME, TRACK)}
    return {**cells, _PID_CELL: sample.pid}


def _converted(sample: Sample, cells: Metadata) -> Sample:
    pid: Pid | None = pid_of(cells[_PID_CELL])
    if isinstance(cells[_PID_CELL], float) and isinstance(pid, str):
        pid = sample.pid  # 1.10 and 1.1 are two products
    metadata = {name: cell for name, cell in cells.items() if name != _PID_CELL}
    fixed = {name: sample.metadata[name] for name in (TIME, TRACK) if name in sample.metadata}
    return replace(sample, pid=pid, metadata={**metadata, **fixed})
