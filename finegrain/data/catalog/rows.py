"""Files of rows: CSV, JSON lines, Parquet, and the XML of feeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from finegrain.errors import DataError, require

TEXT_TABLES = (".csv", ".tsv", ".txt")

_XML_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column, and where it stands; or why it cannot be read."""

    where: str
    cells: Mapping[str, Any]
    why: str | None = None


def read_rows(table: Path, *, fallback_encoding: str | None = None) -> Iterator[Row]:
    """Read the rows of a table by its ending.

    Args:
        table: ``.csv``, ``.tsv`` or ``.txt``; ``.jsonl`` or ``.ndjson``; ``.parquet``; ``.xml``.
        fallback_encoding: What the rows of a CSV are in that are not UTF-8.

    Raises:
        DataError: It ends otherwise, or cannot be read at all.
    """
    if table.suffix.lower() in TEXT_TABLES:
        return read_csv(table, fallback_encoding=fallback_encoding)
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": read_json_lines,
        ".ndjson": read_json_lines,
        ".parquet": read_parquet,
        ".xml": read_xml_items,
    }
    if table.suffix.lower() not in readers:
        endings = ", ".join((*TEXT_TABLES, *readers))
        raise DataError(f"expected a table ending in {endings}, got {table.name!r}.")
    return readers[table.suffix.lower()](table)


def columns_of(table: Path) -> tuple[str, ...]:
    """The columns of the first row that can be read; none where there is no such row."""
    return tuple(next((row.cells for row in read_rows(table) if row.cells), ()))


def read_csv(table: Path, *, fallback_encoding: str | None = None) -> Iterator[Row]:
    """Rows of a comma, semicolon or tab table in UTF-8, with or without a byte order mark.

    Args:
        table: The file.
        fallback_encoding: How rows are read that are not UTF-8, such as ``cp1252`` or
            ``latin-1``; without it they cannot be read.
    """
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
                yield Row(where, {}, f"cannot be read: {error}")
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield Row(where, {}, f"has {len(cells)} cells, expected {len(header)}")
                continue
            try:
                decoded = _decode(cells, fallback_encoding)
            except DataError as error:
                yield Row(where, {}, str(error))
            else:
                yield Row(where, dict(zip(header, decoded, strict=True)))


def _decode(cells: list[str], fallback_encoding: str | None) -> list[str]:
    if not any("\udc80" <= character <= "\udcff" for character in "".join(cells)):
        return cells
    if fallback_encoding is None:
        raise DataError("holds bytes that are not UTF-8")
    try:
        return [cell.encode("utf-8", "surrogateescape").decode(fallback_encoding) for cell in cells]
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"is neither UTF-8 nor {fallback_encoding}: {error}") from error


def read_json_lines(table: Path) -> Iterator[Row]:
    """One row an object a line; blank lines are passed over."""
    with table.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            where = f"{table.name}:{number}"
            try:
                cells = json.loads(line.removeprefix(b"\xef\xbb\xbf")) if line.strip() else None
            except (ValueError, RecursionError) as error:
                yield Row(where, {}, f"is not JSON: {error}")
                continue
            if isinstance(cells, dict):
                yield Row(where, cells)
            elif line.strip():
                yield Row(where, {}, f"is not a JSON object but {type(cells).__name__}")


def read_parquet(table: Path) -> Iterator[Row]:
    """Rows of a Parquet table; embedded pictures come as they are stored there."""
    pyarrow = require("pyarrow", "train")
    parquet = require("pyarrow.parquet", "train")
    number = 0
    try:
        with parquet.ParquetFile(table) as file:
            # A batch of embedded pictures is held in memory at once.
            for batch in file.iter_batches(batch_size=256):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"{table.name} row {number}", cells)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a Parquet table at {table}, could not read it: {error}.") from (
            error
        )


def read_xml_items(feed: Path) -> Iterator[Row]:
    """One row an ``item`` (RSS) or ``entry`` (Atom), with its direct children as cells.

    Names lose their namespaces; a child that is there several times becomes a list. A
    document type is refused before any entity of it is read.

    Raises:
        DataError: It is not XML, or declares a document type.
    """
    items = _Items(feed)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = items.refuse_doctype
    parser.StartElementHandler = lambda name, _: items.start(name, parser.CurrentLineNumber)
    parser.EndElementHandler = items.end
    parser.CharacterDataHandler = items.add_text
    with feed.open("rb") as stream:
        while True:
            chunk = stream.read(_XML_CHUNK)
            try:
                parser.Parse(chunk, not chunk)
            except expat.ExpatError as error:
                raise DataError(f"expected XML in {feed}, could not read it: {error}.") from error
            yield from items.take()
            if not chunk:
                return


class _Items:
    """Gathers items while expat walks through a feed."""

    def __init__(self, feed: Path) -> None:
        self._feed = feed
        self._done: list[Row] = []
        self._cells: dict[str, Any] | None = None
        self._where = ""
        self._depth = 0  # below the item
        self._text: list[str] = []

    def take(self) -> list[Row]:
        done, self._done = self._done, []
        return done

    def refuse_doctype(self, *_: object) -> None:
        raise DataError(
            f"{self._feed} declares a document type, which feeds have no need of and which may "
            "expand without end. Remove its <!DOCTYPE ...>."
        )

    def start(self, name: str, line: int) -> None:
        if self._cells is not None:
            self._depth += 1
            if self._depth == 1:
                self._text = []
        elif _local(name) in ("item", "entry"):
            self._cells, self._depth, self._where = {}, 0, f"{self._feed.name}:{line}"

    def add_text(self, text: str) -> None:
        if self._depth == 1:
            self._text.append(text)

    def end(self, name: str) -> None:
        if self._cells is None:
            return
        if self._depth == 0:
            self._done.append(Row(self._where, self._cells))
            self._cells = None
            return
        if self._depth == 1:
            text, column = "".join(self._text).strip(), _local(name)
            earlier = self._cells.get(column)
            self._cells[column] = text if earlier is None else [*_as_list(earlier), text]
        self._depth -= 1


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _as_list(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]
