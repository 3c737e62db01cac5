"""Readers of JSON: one object per line, or a document with an array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finegrain.data.catalog.encoding import Encoding, find_encoding
from finegrain.data.catalog.row import Row, TextFormat
from finegrain.errors import DataError

MAX_DOCUMENT_BYTES = 1 << 28
"""Largest JSON document in bytes. A document is read into memory as a whole."""


def read_json_lines(table: Path, text: TextFormat) -> Iterator[Row]:
    """Yield one row for each line, which is an object. Blank lines are ignored."""
    encoding = find_encoding(table, stated=text.encoding, fallback=text.fallback_encoding)
    number = 0
    with encoding.open(table) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _row(f"{table.name}:{number}", line, encoding)
        except UnicodeDecodeError:
            why = f"is not {encoding.name} from here on, so the rest is not read"
            yield Row(f"{table.name}:{number + 1}", {}, why)


def read_json(table: Path, text: TextFormat) -> Iterator[Row]:
    """Yield one row for each object of an array, or for a single object.

    The array may also be the only one inside an object, as in ``{"products": [...]}``, or be
    stored by columns, as in ``{"image": {"0": "a.jpg"}, "caption": {"0": "coat"}}``. Several
    objects without an array are read as JSON lines.

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
        document = json.loads(content)
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
        return _object(where, json.loads(encoding.checked([line])[0]))
    except DataError as error:
        return Row(where, {}, str(error))
    except RecursionError:
        return Row(where, {}, "nests too deeply to be read")
    except ValueError as error:
        return Row(where, {}, f"is not JSON: {error}")


def _object(where: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, {}, f"is not a JSON object but {type(value).__name__}")


def _array(content: str, table: Path) -> Iterator[Row]:
    """Yield the objects of an array with their lines, up to the first that is not JSON."""
    decoder = json.JSONDecoder()
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


def _next_value(content: str, place: int) -> int:
    while content[place : place + 1] in (" ", "\t", "\r", "\n", ","):
        place += 1
    return place


def _document(document: Any, table: Path) -> Iterator[Row]:
    if not isinstance(document, dict):
        raise DataError(f"expected objects in {table}, got {document!r:.60}.")
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
        for number, cells in _by_columns(document):
            yield Row(f"{table.name} row {number}", cells)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _by_columns(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    columns = [column for column in document.values() if isinstance(column, dict)]
    if not document or len(columns) < len(document):
        yield "1", document
        return
    for number in dict.fromkeys(number for column in columns for number in column):
        yield number, {name: column.get(number) for name, column in document.items()}
