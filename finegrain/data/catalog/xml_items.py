"""Reader of RSS and Atom feeds: one row per item."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from finegrain.data.catalog.row import Row
from finegrain.errors import DataError

_XML_CHUNK = 1 << 16


def read_xml_items(feed: Path, encoding: str | None = None) -> Iterator[Row]:
    """Yield one row per ``item`` (RSS) or ``entry`` (Atom), with its direct children as cells.

    Namespaces are removed from names. A repeated child becomes a list. A document type is
    rejected before any of its entities is read.

    Args:
        feed: The file.
        encoding: Encoding to use instead of the one that the file declares.

    Raises:
        DataError: The file is not XML, or declares a document type.
    """
    items = _Items(feed)
    # With its support of namespaces, expat would copy their URIs, which may be long, for each name.
    parser = expat.ParserCreate(encoding)
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
            except DataError:
                raise
            except (expat.ExpatError, LookupError, ValueError) as error:
                raise DataError(f"expected XML in {feed}, could not read it: {error}.") from error
            yield from items.take()
            if not chunk:
                return


class _Items:
    """Collects items while expat parses a feed."""

    def __init__(self, feed: Path) -> None:
        self._feed = feed
        self._done: list[Row] = []
        self._cells: dict[str, list[str]] | None = None
        self._where = ""
        self._depth = 0  # below the item
        self._text: list[str] = []

    def take(self) -> list[Row]:
        done, self._done = self._done, []
        return done

    def refuse_doctype(self, *_: object) -> None:
        raise DataError(
            f"{self._feed} declares a document type, which feeds do not need and which may expand "
            "without limit. Remove its <!DOCTYPE ...>."
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
            cells = {name: texts if texts[1:] else texts[0] for name, texts in self._cells.items()}
            self._done.append(Row(self._where, cells))
            self._cells = None
            return
        if self._depth == 1:
            text, column = "".join(self._text).strip(), _local(name)
            self._cells.setdefault(column, []).append(text)
        self._depth -= 1


def _local(name: str) -> str:
    return name.rpartition(":")[2]
