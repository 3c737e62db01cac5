"""Readers of JSON: one object per line, or a document with an array of objects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from finegrain.data.catalog.encoding import Encoding, find_encoding
from finegrain.data.catalog.header import has_usual_names
from finegrain.data.catalog.row import Row, TextFormat
from finegrain.errors import DataError

MAX_DOCUMENT_BYTES = 1 << 28
"""Largest JSON document in bytes. A document is read into memory as a whole."""

MAX_LINE = 1 << 26
"""Longest line of JSON lines, in characters. A line is read into memory as a whole."""

MAX_DIGITS = 1000
"""Longest integer. Its conversion takes quadratic time."""


def read_json_lines(table: Path, text: TextFormat) -> Iterator[Row]:
    """Yield one row for each line, which is an object. Blank lines are ignored."""
    encoding = find_encoding(table, stated=text.encoding, fallback=text.fallback_encoding)
    number = 0
    with encoding.open(table) as stream:
        try:
            for number, line in enumerate(_lines(stream), start=1):
                if len(line) > MAX_LINE:
                    why = f"is longer than {MAX_LINE:,} characters, so that the rest is not read"
                    yield Row(f"{table.name}:{number}", {}, why)
                    return
                if line.strip():
                    yield _row(f"{table.name}:{number}", line, encoding)
        except UnicodeDecodeError:
            why = f"is not {encoding.name} from here on, so the rest is not read"
            yield Row(f"{table.name}:{number + 1}", {}, why)


def _lines(stream: IO[str]) -> Iterator[str]:
    """The lines of a text. The part of a line that is too long is one, too."""
    return iter(lambda: stream.readline(MAX_LINE + 1), "")


def read_json(table: Path, text: TextFormat) -> Iterator[Row]:
    """Yield one row for each object of an array, or for a single object.

    The array may also be the only one inside an object, as in ``{"products": [...]}``, or be
    stored by columns, as in ``{"image": ["a.jpg"], "caption": ["coat"]}`` or
    ``{"image": {"0": "a.jpg"}, "caption": {"0": "coat"}}``. Several objects without an array are
    read as JSON lines.

    Raises:
        DataError: The file is not JSON, is too large, or has several arrays.
    """
    if table.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"expected a JSON document of at most {MAX_DOCUMENT_BYTES >> 20} MiB, because it is "
            f"read into memory; {table} is larger. Write one object per line (.jsonl) instead."
        )
    encoding = find_encoding(table, stated=text.encoding, fallback=text.fallback_encoding)
    try:
        with encoding.open(table) as stream:
            content = encoding.checked([stream.read()])[0]
    except (UnicodeDecodeError, DataError) as error:
        raise DataError(f"{table} cannot be read as {encoding.name}: {error}.") from error
    if content.lstrip()[:1] == "[":
        yield from _array(content, table)
        return
    try:
        document = json.loads(content, object_pairs_hook=_pairs, parse_int=_integer)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(f"expected JSON in {table}, got {error}.") from error
        yield from read_json_lines(table, text)
    except RecursionError as error:
        raise DataError(f"{table} is nested too deeply.") from error
    else:
        yield from _document(document, table)


def _row(where: str, line: str, encoding: Encoding) -> Row:
    try:
        content = encoding.checked([line])[0].rstrip().removesuffix(",")
        return _object(where, json.loads(content, object_pairs_hook=_pairs, parse_int=_integer))
    except DataError as error:
        return Row(where, {}, str(error))
    except RecursionError:
        return Row(where, {}, "nests too deeply to be read")
    except ValueError as error:
        return Row(where, {}, f"is not JSON: {error}")


def _object(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(where, {}, f"is not a JSON object but {type(value).__name__}")
    wrong = _first_invalid(value)
    return Row(where, value) if wrong is None else Row(where, {}, wrong.why)


@dataclass(frozen=True, slots=True)
class _Invalid:
    """Stands for a value that JSON allows but a row cannot have, so that the rest is read."""

    why: str


def _first_invalid(value: Any) -> _Invalid | None:
    """An invalid value at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Invalid):
            return value
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different."""
    cells = dict(pairs)
    if len(cells) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        cells[twice] = _Invalid(f"has {twice!r:.60} twice")
    return cells


def _integer(digits: str) -> Any:
    if len(digits) > MAX_DIGITS:
        return _Invalid(f"has a number of {len(digits):,} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def _array(content: str, table: Path) -> Iterator[Row]:
    """Yield the objects of an array with their lines, up to the first that is not JSON."""
    decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer)
    line, counted, place = 1, 0, content.index("[") + 1
    while True:
        place = _next_value(content, place)
        line, counted = line + content.count("\n", counted, place), place
        where = f"{table.name}:{line}"
        if content[place : place + 1] == "]":
            return
        try:
            value, place = decoder.raw_decode(content, place)
        except RecursionError:
            yield Row(where, {}, "nests too deeply, so that the rest is not read")
            return
        except ValueError as error:
            yield Row(where, {}, f"is not JSON, so that the rest is not read: {error}")
            return
        yield _object(where, value)


_SPARSE_RATIO, _SPARSE_CELLS = 100, 1_000_000
"""Most cells of columns with the missing ones, for each cell that there is; and in small tables."""

_BETWEEN_VALUES = re.compile(r"[ \t\r\n,]*")


def _next_value(content: str, place: int) -> int:
    match = _BETWEEN_VALUES.match(content, place)
    return place if match is None else match.end()


def _document(document: Any, table: Path) -> Iterator[Row]:
    if not isinstance(document, dict):
        raise DataError(f"expected objects in {table}, got {document!r:.60}.")
    while not _is_by_keys(document) and (inner := _wrapped(document)) is not None:
        document = inner
    if _is_by_keys(document):
        for key, cells in document.items():
            yield _object(f"{table.name} {key!r:.60}", {"key": key, **cells})
        return
    arrays = {name: value for name, value in document.items() if _holds_objects(value)}
    if len(arrays) > 1:
        raise DataError(
            f"expected one array of objects in {table}, got {', '.join(arrays)}. Write the right "
            "one to a separate file."
        )
    for name, array in arrays.items():
        for place, value in enumerate(array):
            yield _object(f"{table.name} {name}[{place}]", value)
    if not arrays:
        for number, cells in _by_columns(document, table):
            yield _object(f"{table.name} row {number}", cells)


def _is_by_keys(document: Mapping[str, Any]) -> bool:
    """Whether the names of a document are keys, such as ids, of objects that are rows."""
    rows = list(document.values())
    return (
        bool(rows)
        and all(isinstance(row, dict) for row in rows)
        and has_usual_names(list(rows[0]))
        and not has_usual_names(list(document))
    )


def _wrapped(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The only object inside a document, if its name is no column."""
    inner = next(iter(document.values())) if len(document) == 1 else None
    return inner if isinstance(inner, dict) and not has_usual_names(list(document)) else None


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _by_columns(
    document: Mapping[str, Any], table: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lists = [column for column in document.values() if isinstance(column, list)]
    if document and len(lists) == len(document):
        if len(set(map(len, lists))) > 1:
            lengths = ", ".join(f"{name}: {len(column)}" for name, column in document.items())
            raise DataError(f"expected columns of one length in {table}, got {lengths:.200}.")
        for number, cells in enumerate(zip(*lists, strict=True), start=1):
            yield str(number), dict(zip(document, cells, strict=True))
        return
    columns = [column for column in document.values() if isinstance(column, dict)]
    if not document or len(columns) < len(document):
        yield "1", document
        return
    numbers = dict.fromkeys(number for column in columns for number in column)
    num_cells = sum(map(len, columns))
    if len(numbers) * len(columns) > max(_SPARSE_CELLS, _SPARSE_RATIO * num_cells):
        raise DataError(
            f"expected columns of one length in {table}, got {num_cells:,} cells in "
            f"{len(columns):,} columns and {len(numbers):,} rows. Write one object per row."
        )
    for number in numbers:
        yield number, {name: column.get(number) for name, column in document.items()}
