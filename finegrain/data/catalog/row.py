"""The types that all readers of tables return: rows with their positions, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column and its position, or why it cannot be read.

    Attributes:
        odd: Reports of cells that were left empty, such as a formula without a stored value.
    """

    where: str
    cells: Mapping[str, Any]
    why: str | None = None
    odd: tuple[str, ...] = ()

    @property
    def invalid(self) -> str | None:
        """Why the row cannot be used: it cannot be read, or has a text that cannot be stored."""
        if self.why is not None:
            return self.why
        text = "".join(cell for cell in self.cells.values() if isinstance(cell, str))
        if "\0" in text:
            return "holds a NUL character"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "holds half of a surrogate pair, which is no character"
        return None


@dataclass(slots=True, kw_only=True)
class Table:
    """An open table.

    Attributes:
        path: The file.
        columns: Names of its columns. For formats without a header, those of the first rows.
        rows: The rows, which can be read once.
        is_text: Whether the format stores every cell as text.
        notes: Sentences about guesses of the format.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]
    is_text: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """The format of a text table. None is detected.

    Attributes:
        encoding: Encoding of the file, such as ``gbk``.
        fallback_encoding: Encoding of the file if it is not UTF-8.
        separator: The character between cells.
    """

    encoding: str | None = None
    fallback_encoding: str | None = None
    separator: str | None = None


FIND_OUT = TextFormat()
"""A format of which everything is detected."""


def unambiguous(cells: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Column names that are neither blank nor repeated, and notes about changed names."""
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    taken = set(cells)
    names: dict[str, None] = {}  # a set that keeps the order
    last: dict[str, int] = {}
    notes = []
    for number, cell in enumerate(cells, start=1):
        name = cell or f"column_{number}"
        if name in names:
            again = last.get(name, 1) + 1
            while f"{name}_{again}" in taken:
                again += 1
            last[name] = again
            name = f"{name}_{again}"
            taken.add(name)
            notes.append(f"the name {cell!r} comes again in column {number}, read as {name!r}")
        names[name] = None
    return tuple(names), notes
