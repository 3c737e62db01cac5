"""What every reader of tables gives: rows with the place where each stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column, and where it stands; or why it cannot be read."""

    where: str
    cells: Mapping[str, Any]
    why: str | None = None


@dataclass(slots=True, kw_only=True)
class Table:
    """An open table.

    Attributes:
        path: The file.
        columns: Its columns; of formats without a header, those of the first rows.
        rows: Read once, one by one.
        is_text: Whether every cell is text, whatever it means.
        notes: What was guessed about the format, for people.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]
    is_text: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """What is known of a table of text; None is found out.

    Attributes:
        encoding: Of the whole file, such as ``gbk``.
        fallback_encoding: Of the whole file where that is not UTF-8.
        separator: The character between cells.
    """

    encoding: str | None = None
    fallback_encoding: str | None = None
    separator: str | None = None


FIND_OUT = TextFormat()
"""Nothing is known of the table."""


def unambiguous(cells: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Column names without blanks and repetitions, and notes that name those changed."""
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells = cells[:-1]
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
