"""Comparisons with a meaning of their own: pids compare by spelling, dates by whole days."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import chain

from finegrain.gallery.filters.conditions import (
    BUILT_IN,
    And,
    Column,
    Comparison,
    Condition,
    Membership,
    Operator,
    Or,
    Value,
)
from finegrain.times import utc_text

INT64 = range(-(2**63), 2**63)

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
AFTER_ALL = "9999-12-31T23:59:60"
"""The end of the last day: as text, it is above every stored time."""


class PositionedError(Exception):
    """An error at one position of the expression."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(why)
        self.position = position
        self.why = why

    def message(self, expression: str) -> str:
        # The caret is in the right column only if each character takes one cell of one line.
        line = "".join(c if c.isprintable() else " " for c in expression)
        start = max(0, self.position - 60)
        shown = line[start : self.position + 40]
        return (
            f"The filter is wrong at character {self.position + 1}: {self.why}\n"
            f"  {shown}\n"
            f"  {' ' * (self.position - start)}^"
        )


def compared(column: Column, operator: Operator, value: Value) -> Condition:
    """The condition for comparing a column with one value.

    Raises:
        PositionedError: The column holds times, and the value is not a time.
    """
    kind = BUILT_IN.get(column.name)
    if kind == "time":
        return _compared_time(column, operator, value)
    if kind == "key" and operator in ("=", "!="):
        return Membership(column, _spellings(value), negated=operator == "!=")
    return Comparison(column, operator, value)


def among(column: Column, values: Sequence[Value], *, negated: bool) -> Condition:
    """The condition for ``in (...)``, or ``not in (...)`` if ``negated``.

    Raises:
        PositionedError: The column holds times, and a value is not a time.
    """
    kind = BUILT_IN.get(column.name)
    if kind == "key":
        return Membership(column, tuple(chain.from_iterable(map(_spellings, values))), negated)
    if kind == "time":
        terms = tuple(_compared_time(column, "!=" if negated else "=", v) for v in values)
        exact = [term.value for term in terms if isinstance(term, Comparison)]
        if len(exact) < len(terms):
            return And(terms) if negated else Or(terms)
        values = exact
    return Membership(column, tuple(values), negated)


def between(column: Column, low: Value, high: Value, *, negated: bool) -> Condition:
    """The condition for ``between`` (both bounds included), or ``not between`` if ``negated``.

    Raises:
        PositionedError: The column holds times, and a bound is not a time.
    """
    if negated:
        return Or((compared(column, "<", low), compared(column, ">", high)))
    return And((compared(column, ">=", low), compared(column, "<=", high)))


def _compared_time(column: Column, operator: Operator, value: Value) -> Condition:
    """A date means the whole day in UTC: ``<=`` includes the day, ``>`` starts after it."""
    start, following = _span(column, value)
    if following is None:
        return Comparison(column, operator, start)
    match operator:
        case "=":
            return And((Comparison(column, ">=", start), Comparison(column, "<", following)))
        case "!=":
            return Or((Comparison(column, "<", start), Comparison(column, ">=", following)))
        case "<" | ">=":
            return Comparison(column, operator, start)
        case "<=":
            return Comparison(column, "<", following)
        case ">":
            return Comparison(column, ">=", following)


def _span(column: Column, value: Value) -> tuple[str, str | None]:
    """A time as it is stored, and None; or for a date, its start and the start of the next day."""
    try:
        if isinstance(value, str):
            start = utc_text(value)
            return start, _next_day(value)
    except ValueError:
        pass  # raise the same error as for a number
    raise PositionedError(
        column.position,
        f"{column.name} compares with a time such as '2026-05-01' (the whole day) or "
        f"'2026-05-01T08:00' (UTC, or with an offset as in '2026-05-01T08:00+02:00'); got "
        f"{value!r:.40}.",
    )


def _next_day(text: str) -> str | None:
    """Start of the day after a date; None if the text includes a time of day."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    if day == date.max:
        return AFTER_ALL
    return utc_text((day + timedelta(days=1)).isoformat())


def _spellings(value: Value) -> tuple[Value, ...]:
    """The number and the text with the same spelling as a value."""
    if isinstance(value, bool):
        return (value,)  # raises an error later, since no pid is a boolean
    if isinstance(value, float) and value.is_integer() and int(value) in INT64:
        value = int(value)
    if not isinstance(value, str):
        return value, str(value)
    number = int(value) if _WHOLE_NUMBER.fullmatch(value) else None
    return (value,) if number is None or number not in INT64 else (number, value)
