"""Compiling a ``where=`` expression to SQL.

Names and values are always passed as parameters and never written into the SQL text. The table
``attribute`` holds one row per picture and metadata column; its index makes a selective filter
fast for any column.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from finegrain.gallery.filters.conditions import (
    BUILT_IN,
    ORDERS,
    And,
    Column,
    Comparison,
    Condition,
    IsNull,
    Like,
    Membership,
    Or,
    Value,
    kind_of,
)
from finegrain.gallery.filters.wildcards import is_like


class Sql(NamedTuple):
    """A condition on the table ``picture``, and its parameters in order."""

    text: str
    parameters: tuple[Value, ...]


def to_sql(condition: Condition) -> Sql:
    """Compile a checked filter; it matches the rows where ``evaluate`` is true."""
    match condition:
        case And(terms):
            return _join(" AND ", map(to_sql, terms))
        case Or(terms):
            return _join(" OR ", map(to_sql, terms))
        case IsNull(column, negated):
            return _is_null(column, negated)
        case Comparison(column, operator, value):
            return _compare(column, operator, (value,))
        case Like(column, pattern, negated):
            return _like(column, pattern, negated)
        case Membership(column, values, negated):
            return _compare(column, "NOT IN" if negated else "IN", values)


def _join(word: str, terms: Iterable[Sql]) -> Sql:
    parts = tuple(terms)
    parameters = chain.from_iterable(part.parameters for part in parts)
    return Sql("(" + word.join(part.text for part in parts) + ")", tuple(parameters))


def _is_null(column: Column, negated: bool) -> Sql:
    if column.name in BUILT_IN:
        return Sql(f"{column.name} IS {'NOT ' if negated else ''}NULL", ())
    return Sql(
        f"id {'' if negated else 'NOT '}IN "
        "(SELECT picture FROM attribute WHERE name = ? AND value IS NOT NULL)",
        (column.name,),
    )


def _like(column: Column, pattern: str, negated: bool) -> Sql:
    word = "NOT " if negated else ""
    if column.name in BUILT_IN:
        # For a missing value the result is null, also with NOT, so that the row does not match.
        return Sql(f"{word}is_like(CAST({column.name} AS TEXT), ?)", (pattern,))
    return Sql(
        "id IN (SELECT picture FROM attribute WHERE name = ? AND value IS NOT NULL "
        f"AND {word}(kind = 'text' AND is_like(value, ?)))",
        (column.name, pattern),
    )


def sql_is_like(text: str | None, pattern: str) -> bool | None:
    """The SQL function ``is_like``; a connection must register it to run these conditions."""
    return None if text is None else is_like(text, pattern)


def _compare(column: Column, operator: str, values: tuple[Value, ...]) -> Sql:
    if column.name in BUILT_IN:
        test = f"{column.name} {operator} {_marks(operator, values)}"
        if BUILT_IN[column.name] == "key" and operator in ORDERS:
            # SQLite puts all numbers before all texts.
            kind = "text" if isinstance(values[0], str) else "integer"
            test = f"(typeof({column.name}) = '{kind}' AND {test})"
        return Sql(test, values)
    # "Different" includes every other kind, so it is the negation of "same kind and equal".
    negated = operator in _OPPOSITES
    positive = _OPPOSITES.get(operator, operator)
    tests = _join(" OR ", (_of_kind(kind, positive, values) for kind in _kinds(values)))
    return Sql(
        "id IN (SELECT picture FROM attribute WHERE name = ? AND value IS NOT NULL "
        f"AND {'NOT ' if negated else ''}{tests.text})",
        (column.name, *tests.parameters),
    )


_OPPOSITES = {"!=": "=", "NOT IN": "IN"}


def _kinds(values: tuple[Value, ...]) -> list[str]:
    return sorted({kind_of(value) for value in values})


def _of_kind(kind: str, operator: str, values: tuple[Value, ...]) -> Sql:
    alike = tuple(value for value in values if kind_of(value) == kind)
    return Sql(f"kind = ? AND value {operator} {_marks(operator, alike)}", (kind, *alike))


def _marks(operator: str, values: tuple[Value, ...]) -> str:
    return f"({', '.join('?' * len(values))})" if operator.endswith("IN") else "?"
