"""Columns as arrays, in blocks of rows.

A text or a boolean is a *word*. A column numbers its different words, and stores for each row the
number of its word, in one or two bytes. Numbers are stored as float64, and times as milliseconds.
So a row takes one, two or eight bytes in a column of one kind. The ids take eight bytes, once for
all columns.

A column of very many different texts, such as captions, does not keep them. It only stores which
rows have a text.

All objects are immutable, so that any thread may read them. A change copies the arrays of the
blocks that it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import getsizeof
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from finegrain.index.estimate import Ids, Rows

BLOCK_ROWS = 65_536
"""Rows of a full block. Its masks stay in the processor's cache while a filter is evaluated."""

MOST_WORDS = 65_535
"""Different words that a column keeps, so that two bytes are enough for a code."""

MOST_CHARACTERS = 1 << 24
"""Characters in the words that a column keeps."""

Word = str | bool
Numbers = NDArray[np.float64]
Codes = NDArray[np.uint8 | np.uint16]


class Cells(NamedTuple):
    """The values of a column in one block. A row without a word and a number has no value.

    Attributes:
        codes: Code of the word of each row, or 0, ``[n]``; None if no row has a word.
        numbers: Number of each row, or NaN, ``[n]``; None if no row has a number.
    """

    codes: Codes | None = None
    numbers: Numbers | None = None

    def grown(self, length: int) -> Cells:
        """A copy with more rows, which have no value."""
        codes, numbers = self
        if codes is not None:
            codes = np.concatenate([codes, np.zeros(length - len(codes), codes.dtype)])
        if numbers is not None:
            numbers = np.concatenate([numbers, np.full(length - len(numbers), np.nan)])
        return Cells(codes, numbers)


class Group(NamedTuple):
    """Rows by their value.

    Attributes:
        values: Words or numbers.
        counts: How many rows have each of the values.
        ids: The ids of these rows, one value after the other.
    """

    values: Sequence[Word] | Numbers
    counts: Sequence[int]
    ids: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of one column.

    Attributes:
        cells: The values, by block.
        codes: Code of each word, from 1.
        keeps_words: Whether words can be compared. If not, each word has the code 1.
    """

    cells: tuple[Cells, ...]
    codes: Mapping[Word, int] = field(default_factory=dict)
    keeps_words: bool = True

    @property
    def has_numbers(self) -> bool:
        return any(cells.numbers is not None for cells in self.cells)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The ids of all rows, and the columns that were read.

    Attributes:
        blocks: Ids ``[n]`` of each block, ascending.
        columns: Columns by name. None stands for a column whose values do not fit into arrays.
    """

    blocks: tuple[Ids, ...] = ()
    columns: Mapping[str, Column | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def last_id(self) -> int:
        """The highest id, or 0."""
        return int(self.blocks[-1][-1]) if self.blocks else 0

    @property
    def num_bytes(self) -> int:
        """Bytes of ids, values and words in memory."""
        columns = [column for column in self.columns.values() if column is not None]
        arrays = [array for column in columns for cells in column.cells for array in cells]
        words = sum(getsizeof(word) for column in columns for word in column.codes)
        return words + sum(array.nbytes for array in (*self.blocks, *arrays) if array is not None)

    def with_rows(self, ids: Ids) -> Self:
        """A copy with more rows, which have no values yet.

        Args:
            ids: Ids, ascending, and above all present ones.
        """
        if not len(ids):
            return self
        full = self.blocks
        if full and len(full[-1]) < BLOCK_ROWS:
            ids = np.concatenate([full[-1], ids])
            full = full[:-1]
        new = [ids[start : start + BLOCK_ROWS] for start in range(0, len(ids), BLOCK_ROWS)]
        columns: dict[str, Column | None] = {}
        for name, column in self.columns.items():
            columns[name] = None
            if column is not None:
                cells = [*column.cells[len(full) :], *[Cells()] * len(new)][: len(new)]
                grown = (one.grown(len(block)) for one, block in zip(cells, new, strict=True))
                columns[name] = replace(column, cells=(*column.cells[: len(full)], *grown))
        return replace(self, blocks=(*full, *new), columns=columns)

    def with_column(self, name: str, column: Column | None) -> Self:
        """A copy with one column added or replaced."""
        return replace(self, columns={**self.columns, name: column})

    def blank(self) -> Column:
        """A column without values."""
        return Column((Cells(),) * len(self.blocks))


class Draft:
    """A copy of a column that is being changed; unchanged arrays are shared with the original.

    Args:
        blocks: The ids of each block.
        column: The original.
    """

    def __init__(self, blocks: Sequence[Ids], column: Column) -> None:
        self._blocks = blocks
        self._cells = list(column.cells)
        self._codes = dict(column.codes)
        self.keeps_words = column.keeps_words
        """Whether words are still kept; False once they have become too many."""
        self._num_characters = sum(len(word) for word in column.codes if isinstance(word, str))
        self._copied: set[int] = set()

    def column(self) -> Column:
        return Column(tuple(self._cells), self._codes, self.keeps_words)

    def clear(self, ids: Ids) -> None:
        """Remove the values of some rows, ascending."""
        for block, rows, _ in self._places(ids):
            codes, numbers = self._own(block)
            if codes is not None:
                codes[rows] = 0
            if numbers is not None:
                numbers[rows] = np.nan

    def write(self, group: Group) -> None:
        """Set the values of rows that have none."""
        order = np.argsort(group.ids)
        values: NDArray[Any]
        own: Callable[[int], NDArray[Any]]
        if isinstance(group.values, np.ndarray):
            values, own = group.values, self._numbers_of
        else:
            values, own = self._coded(group.values), self._codes_of
        each = np.repeat(values, group.counts)[order]
        for block, rows, part in self._places(group.ids[order]):
            own(block)[rows] = each[part]

    def _places(self, ids: Ids) -> Iterator[tuple[int, Rows, NDArray[np.intp]]]:
        """Blocks with any of the ids (ascending), their rows, and the positions of the ids."""
        for number, own in enumerate(self._blocks):
            start, stop = np.searchsorted(ids, [own[0], own[-1] + 1])
            if start < stop:
                rows = np.searchsorted(own, ids[start:stop])
                # Metadata of a damaged file may be of a row that does not exist.
                existing = np.flatnonzero(own[rows] == ids[start:stop])
                yield number, rows[existing], start + existing

    def _coded(self, words: Sequence[Word]) -> NDArray[np.int64]:
        """The codes of words; new words get new codes."""
        if self.keeps_words:
            for word in words:
                if word not in self._codes:
                    self._codes[word] = len(self._codes) + 1
                    self._num_characters += len(word) if isinstance(word, str) else 0
            if len(self._codes) > MOST_WORDS or self._num_characters > MOST_CHARACTERS:
                self._forget_words()
        if not self.keeps_words:
            return np.ones(len(words), np.int64)
        return np.array([self._codes[word] for word in words], np.int64)

    def _forget_words(self) -> None:
        self.keeps_words = False
        self._codes = {}
        self._num_characters = 0
        self._cells = [
            cells._replace(codes=None if cells.codes is None else (cells.codes > 0).view(np.uint8))
            for cells in self._cells
        ]

    def _own(self, block: int) -> Cells:
        """The cells of a block, copied if they are still those of the original."""
        if block not in self._copied:
            self._copied.add(block)
            codes, numbers = self._cells[block]
            self._cells[block] = Cells(
                None if codes is None else codes.copy(), None if numbers is None else numbers.copy()
            )
        return self._cells[block]

    def _numbers_of(self, block: int) -> Numbers:
        cells = self._own(block)
        numbers = cells.numbers
        if numbers is None:
            numbers = np.full(len(self._blocks[block]), np.nan)
            self._cells[block] = cells._replace(numbers=numbers)
        return numbers

    def _codes_of(self, block: int) -> Codes:
        """The codes of a block, in a type that is wide enough for all words."""
        cells = self._own(block)
        codes = cells.codes
        needed = np.dtype(np.uint8 if len(self._codes) < 256 else np.uint16)
        if codes is None:
            codes = np.zeros(len(self._blocks[block]), needed)
        elif codes.itemsize < needed.itemsize:
            codes = codes.astype(needed)
        self._cells[block] = cells._replace(codes=codes)
        return codes
