"""The ``where=`` language: conditions on the pictures that a query searches.

    camera = 'gate-3' and (price < 50 or sale = true) and not "Base Colour" in ('red', 'navy')

Comparisons are ``= == != <> < <= > >=`` between a column and a value, ``between 10 and 20`` (both
included), ``like '%coat'``, ``in (...)``, ``is null``, and ``not between``, ``not like``,
``not in``, ``is not null``; they are joined by ``and``, ``or``, ``not`` and parentheses. Values
are strings in single or double quotes (``\\`` escapes a character, and a doubled quote is one, as
in ``'O''Brien'``), numbers, ``true`` and ``false``. Keywords are case-insensitive; column names are
case-sensitive. Write a column name that is not a plain identifier in double quotes or backquotes:
``"Base Colour" = 'Navy'``.
Columns are ``id``, ``image``, ``pid``, ``camera``, ``time``, ``track``, ``added_at``,
``expires_at`` and the keys of the metadata. ``time``, ``added_at`` and ``expires_at`` are
compared with times in ISO 8601, to the millisecond, in UTC unless they state an offset:
``time >= '2026-05-01T08:00' and time < '2026-05-02T00:00+02:00'``. A date without a
time of day means the whole day in UTC: ``time = '2026-05-01'`` matches all of it, and
``time <= '2026-05-01'`` includes it.

The logic is that of SQL, with three values: a condition is true, false or unknown, and a row
matches if its condition is true.

- A comparison with a missing value is unknown, and so is its negation by ``not``: a row without a
  price matches neither ``price >= 50`` nor ``not price >= 50``. Only ``is null`` finds it.
- Text, numbers and booleans are never equal to each other, so ``=`` between them is false and
  ``!=`` true. Their order is unknown: neither ``<`` nor its negation matches. If a column has never
  held a value of the compared kind, the filter raises an error instead, because it is probably a
  mistake.
- A ``pid`` is a number or a text. Numbers and texts with the same spelling are equal:
  ``pid = 10`` and ``pid = '10'`` match the same pictures. The order of a pid and a value of the
  other kind is unknown.
- In the pattern of ``like``, ``%`` stands for any text and ``_`` for one character. ``like``
  ignores case, unlike ``=``. Only texts and pids can match a pattern.
- Text is ordered by code point. Booleans have no order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from finegrain.gallery.filters.wildcards import is_like
from finegrain.records import BUILT_IN as BUILT_IN
from finegrain.records import Kind, Scalar

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, and its position in the expression for error messages."""

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


Condition = Comparison | Membership | Like | IsNull | And | Or
"""A condition has no node for ``not``: see :func:`opposite`."""

_OPPOSITES: Mapping[Operator, Operator] = {
    "=": "!=",
    "!=": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}


def opposite(condition: Condition) -> Condition:
    """The condition that is true where another is false.

    Where one is unknown, so is the other. Therefore each store tests only whether conditions are
    true, and needs no logic with three values.
    """
    match condition:
        case And(terms):
            return Or(tuple(map(opposite, terms)))
        case Or(terms):
            return And(tuple(map(opposite, terms)))
        case Comparison(column, symbol, value):
            return Comparison(column, _OPPOSITES[symbol], value)
        case _:
            return replace(condition, negated=not condition.negated)


def evaluate(condition: Condition, row: Mapping[str, Scalar]) -> bool:
    """Whether one row matches. This defines the meaning of a filter; tests compare SQL with it.

    Args:
        row: Values by column name, built-in columns and metadata together.
    """
    match condition:
        case And(terms):
            return all(evaluate(term, row) for term in terms)
        case Or(terms):
            return any(evaluate(term, row) for term in terms)
        case IsNull(column, negated):
            return (row.get(column.name) is None) != negated
        case Membership(column, values, negated):
            actual = row.get(column.name)
            return actual is not None and any(_equal(actual, value) for value in values) != negated
        case Like(column, pattern, negated):
            actual = row.get(column.name)
            return actual is not None and _is_like(column, actual, pattern) != negated
        case Comparison(column, symbol, value):
            actual = row.get(column.name)
            return actual is not None and _compare(actual, symbol, value)


def column_names(condition: Condition) -> set[str]:
    """The names of the columns of a filter."""
    match condition:
        case And(terms) | Or(terms):
            return set().union(*map(column_names, terms))
        case _:
            return {condition.column.name}


def column_kinds(seen: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Kind of each column that a filter may use, for people.

    Args:
        seen: Kinds of value that each metadata column has held.
    """
    kinds = {name: " or ".join(sorted(held)) or "null" for name, held in seen.items()}
    return {**BUILT_IN, "pid": "number or text", **kinds}


def kind_of(value: Value) -> Kind:
    """The kind of a value. A boolean is not a number here, and a time is a text."""
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


def _is_like(column: Column, actual: Value, pattern: str) -> bool:
    is_text = isinstance(actual, str) or BUILT_IN.get(column.name) == "key"
    return is_text and is_like(str(actual), pattern)


def _compare(left: Value, symbol: Operator, right: Value) -> bool:
    if symbol in ORDERS:
        return kind_of(left) == kind_of(right) and ORDERS[symbol](left, right)
    return _equal(left, right) == (symbol == "=")
