"""The ``where=`` language: which pictures of a gallery a query looks at.

    camera = 'gate-3' and (price < 50 or sale = true) and not "Base Colour" in ('red', 'navy')

Comparisons are ``= == != < <= > >=`` between a column and a value, ``between 10 and 20`` (both
included), ``like '%coat'``, ``in (...)``, ``is null``, and ``not between``, ``not like``,
``not in``, ``is not null``; they are joined by ``and``, ``or``, ``not`` and parentheses. Values
are strings in single or double quotes (``\\`` escapes a character), numbers, ``true`` and
``false``. Key words may be written in any case; column names may not. A column whose name is
no plain word stands in double quotes or backquotes: ``"Base Colour" = 'Navy'``.
Columns are ``id``, ``image``, ``pid``, ``camera``, ``time``, ``track``, ``added_at``,
``expires_at`` and the keys of the metadata. ``time``, ``added_at`` and ``expires_at`` are
compared with times of ISO 8601, to the millisecond, in UTC unless they state an offset:
``time >= '2026-05-01T08:00' and time < '2026-05-02T00:00+02:00'``. A date alone is the whole
day, in UTC: ``time = '2026-05-01'``, and ``time <= '2026-05-01'`` goes to its end.

What an expression means is two-valued: a row matches or it does not.

- Any comparison with a missing value is false, ``!=`` and ``not in`` included; ``not`` of
  it is true. So ``camera != 'a'`` leaves out rows without a camera, ``not camera = 'a'``
  keeps them.
- Text, numbers and booleans are never equal to each other, so ``!=`` between them is true
  and an order between them is false. Where a column has only ever held other kinds than
  the value's, the filter is refused instead: it is a mistake, not an empty result.
- A ``pid`` is a number or a text, and equal to what is spelled alike: ``pid = 10`` and
  ``pid = '10'`` find the same pictures. Its order is that of numbers, or of texts.
- In the pattern of ``like``, ``%`` stands for any text and ``_`` for one character; upper and
  lower case are the same, other than for ``=``. Only texts and pids are like a pattern.
- Text is ordered by code point. Booleans have no order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finegrain.gallery.filters.wildcards import is_like
from finegrain.records import BUILT_IN as BUILT_IN
from finegrain.records import Kind, Scalar

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, and where in the expression it stands (for error messages)."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Comparison:
    column: Column
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Membership:
    """``in (...)``, or ``not in (...)`` when ``negated``."""

    column: Column
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """``is null``, or ``is not null`` when ``negated``."""

    column: Column
    negated: bool


@dataclass(frozen=True, slots=True)
class Not:
    term: Condition


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """``like 'pattern'``, or ``not like`` when ``negated``; see :mod:`.wildcards`."""

    column: Column
    pattern: str
    negated: bool


Condition = Comparison | Membership | Like | IsNull | Not | And | Or


def evaluate(condition: Condition, row: Mapping[str, Scalar]) -> bool:
    """Whether one row matches: the definition that the SQL of a filter is held to.

    Args:
        row: Values by column name, built-in columns and metadata together.
    """
    match condition:
        case And(terms):
            return all(evaluate(term, row) for term in terms)
        case Or(terms):
            return any(evaluate(term, row) for term in terms)
        case Not(term):
            return not evaluate(term, row)
        case IsNull(column, negated):
            return (row.get(column.name) is None) != negated
        case Membership(column, values, negated):
            found = row.get(column.name)
            return found is not None and any(_equal(found, value) for value in values) != negated
        case Like(column, pattern, negated):
            found = row.get(column.name)
            return found is not None and _is_like(column, found, pattern) != negated
        case Comparison(column, symbol, value):
            found = row.get(column.name)
            return found is not None and _compare(found, symbol, value)


def kind_of(value: Value) -> Kind:
    """The kind of a value: a boolean is no number here, and a time is text of one form."""
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _equal(left: Value, right: Value) -> bool:
    return kind_of(left) == kind_of(right) and left == right


def _is_like(column: Column, found: Value, pattern: str) -> bool:
    is_text = isinstance(found, str) or BUILT_IN.get(column.name) == "key"
    return is_text and is_like(str(found), pattern)


def _compare(left: Value, symbol: Operator, right: Value) -> bool:
    if symbol in ORDERS:
        return kind_of(left) == kind_of(right) and ORDERS[symbol](left, right)
    return _equal(left, right) == (symbol == "=")
