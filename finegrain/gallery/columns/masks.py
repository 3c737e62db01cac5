"""Evaluating a filter over columns in memory: one mask a block.

Words are compared once each, and then found in the rows by their codes, so that the cost a row
does not depend on the length of texts or on the kind of comparison.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.gallery.columns.table import Column, Numbers, Table, Word
from finegrain.gallery.columns.times import milliseconds
from finegrain.gallery.filters.conditions import (
    BUILT_IN,
    ORDERS,
    And,
    Comparison,
    Condition,
    IsNull,
    Like,
    Membership,
    Or,
    Value,
    kind_of,
)
from finegrain.gallery.filters.meaning import AFTER_ALL
from finegrain.gallery.filters.wildcards import is_like
from finegrain.index.estimate import Ids

Mask = NDArray[np.bool_]

Test = Callable[[int], Mask]
"""From the number of a block to a new mask of its matching rows."""

Select = Callable[[Condition], Ids]
"""Ids of the rows that match a condition, ascending, by SQL."""

_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {**ORDERS, "=": operator.eq}
_FEW = 4  # comparing codes with so many numbers is faster than looking each code up


class NeedsSqlError(Exception):
    """The columns lack the values that a filter compares; SQL must evaluate it."""


def compiled(condition: Condition, table: Table, select: Select) -> Test:
    """Compile a filter; it matches the rows where ``evaluate`` is true.

    Args:
        condition: A checked filter.
        table: The rows, with all columns of the filter.
        select: Finds equal texts by an index of the file, for columns that keep no texts.

    Raises:
        NeedsSqlError: The filter needs texts that the columns do not keep, or a column of values
            that do not fit into arrays.
    """
    match condition:
        case And(terms):
            return _all([compiled(term, table, select) for term in terms])
        case Or(terms):
            return _any([compiled(term, table, select) for term in terms])
        case _:
            return _Leaf(condition, table, select).test()


def split(condition: Condition, table: Table, select: Select) -> tuple[Test, Condition | None]:
    """Compile those terms of ``and`` that columns can evaluate; see :func:`compiled`.

    Returns:
        The compiled terms, and a condition of the others or None.

    Raises:
        NeedsSqlError: There is no term that columns can evaluate.
    """
    tests: list[Test] = []
    others: list[Condition] = []
    for term in condition.terms if isinstance(condition, And) else (condition,):
        try:
            tests.append(compiled(term, table, select))
        except NeedsSqlError:
            others.append(term)
    if not tests:
        raise NeedsSqlError
    return _all(tests), And(tuple(others)) if others else None


def matching(test: Test, table: Table) -> Ids:
    """Ids of the matching rows, ascending."""
    matches = [ids[np.flatnonzero(test(block))] for block, ids in enumerate(table.blocks)]
    return np.concatenate([np.empty(0, np.int64), *matches])


def _all(tests: Sequence[Test]) -> Test:
    def test(block: int) -> Mask:
        mask = tests[0](block)
        for other in tests[1:]:
            if not mask.any():
                break
            mask &= other(block)
        return mask

    return test


def _any(tests: Sequence[Test]) -> Test:
    def test(block: int) -> Mask:
        mask = tests[0](block)
        for other in tests[1:]:
            mask |= other(block)
        return mask

    return test


def _not(inner: Test) -> Test:
    def test(block: int) -> Mask:
        return ~inner(block)

    return test


class _Leaf:
    """A condition on one column."""

    def __init__(
        self, condition: Comparison | Membership | Like | IsNull, table: Table, select: Select
    ) -> None:
        self._condition = condition
        self._name = condition.column.name
        self._kind = BUILT_IN.get(self._name)
        column = table.columns[self._name]
        if column is None:
            raise NeedsSqlError
        self._column: Column = column
        self._blocks = table.blocks
        self._select = select

    def test(self) -> Test:
        match self._condition:
            case IsNull(_, negated):
                return self._present if negated else _not(self._present)
            case Comparison(_, symbol, value) if symbol in ORDERS:
                return self._ordered(symbol, value)
            case Comparison(_, symbol, value):
                return self._among((value,), negated=symbol == "!=")
            case Membership(_, values, negated):
                return self._among(values, negated=negated)
            case Like(_, pattern, negated):
                return self._negated(self._like(pattern)) if negated else self._like(pattern)

    def _present(self, block: int) -> Mask:
        codes, numbers = self._column.cells[block]
        mask = self._none(block) if codes is None else codes != 0
        if numbers is not None:
            mask |= ~np.isnan(numbers)
        return mask

    def _negated(self, test: Test) -> Test:
        """A missing value matches neither a comparison nor its negated form."""
        return _all([_not(test), self._present])

    def _ordered(self, symbol: str, value: Value) -> Test:
        if isinstance(value, str) and self._kind != "time":
            text = value
            return self._word_test(lambda word: ORDERS[symbol](word, text))
        bound = self._number(value)
        nearest = float(bound)
        if nearest != bound:
            # No float64 is equal to the bound, and none is between it and the nearest one.
            symbol = f"{symbol[0]}=" if (nearest < bound) == (symbol[0] == "<") else symbol[0]
        return self._compared(symbol, nearest)

    def _among(self, values: Iterable[Value], *, negated: bool) -> Test:
        words: list[Word] = []
        numbers: list[int | float] = []
        for value in values:
            if self._kind == "time" or kind_of(value) == "number":
                numbers.append(self._number(value))
            else:
                words.append(value)  # type: ignore[arg-type]
        tests = []
        if words:
            tests.append(self._equal_words(words))
        if numbers:
            tests.append(self._equal_numbers(numbers))
        among = _any(tests)
        return self._negated(among) if negated else among

    def _equal_words(self, words: Sequence[Word]) -> Test:
        if self._column.keeps_words:
            known = self._column.codes
            return self._code_test([known[word] for word in words if word in known])
        ids = self._select(Membership(self._condition.column, tuple(words), negated=False))

        def test(block: int) -> Mask:
            own = self._blocks[block]
            start, stop = np.searchsorted(ids, [own[0], own[-1] + 1])
            mask = self._none(block)
            mask[np.searchsorted(own, ids[start:stop])] = True
            return mask

        return test

    def _equal_numbers(self, numbers: Sequence[int | float]) -> Test:
        wanted = np.array(sorted(float(n) for n in numbers if float(n) == n), np.float64)
        if not len(wanted):
            return self._none
        if len(wanted) <= _FEW:
            return _any([self._compared("=", number) for number in wanted.tolist()])

        def is_any(own: Numbers) -> Mask:
            mask: Mask = wanted.take(np.searchsorted(wanted, own), mode="clip") == own
            return mask

        return self._number_test(is_any)

    def _like(self, pattern: str) -> Test:
        if self._kind == "time" or (self._kind == "key" and self._column.has_numbers):
            raise NeedsSqlError  # a pattern matches the spelling of a time or a number
        return self._word_test(lambda word: is_like(word, pattern))

    def _word_test(self, matches: Callable[[str], bool]) -> Test:
        """Rows with a text that matches."""
        if not self._column.keeps_words:
            raise NeedsSqlError
        codes = self._column.codes.items()
        return self._code_test([code for w, code in codes if isinstance(w, str) and matches(w)])

    def _code_test(self, wanted: Sequence[int]) -> Test:
        is_wanted = np.zeros(len(self._column.codes) + 1, np.bool_)
        is_wanted[wanted] = True

        def test(block: int) -> Mask:
            own = self._column.cells[block].codes
            if own is None or not wanted:
                return self._none(block)
            if len(wanted) > _FEW:
                # In this mode, NumPy does not copy the codes to check them first.
                return is_wanted.take(own, mode="clip")
            mask: Mask = own == wanted[0]
            for code in wanted[1:]:
                mask |= own == code
            return mask

        return test

    def _compared(self, symbol: str, bound: float) -> Test:
        compare = _COMPARISONS[symbol]
        return self._number_test(lambda numbers: compare(numbers, bound))

    def _number_test(self, matches: Callable[[Numbers], Mask]) -> Test:
        def test(block: int) -> Mask:
            own = self._column.cells[block].numbers
            return self._none(block) if own is None else matches(own)

        return test

    def _number(self, value: Value) -> int | float:
        """The number that a value is compared as."""
        if isinstance(value, str):
            return math.inf if value == AFTER_ALL else float(milliseconds([value])[0])
        return value

    def _none(self, block: int) -> Mask:
        return np.zeros(len(self._blocks[block]), np.bool_)
