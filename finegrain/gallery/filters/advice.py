"""Notes on a filter that matches few pictures: what no picture has, and reversed bounds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from finegrain.gallery.backend import Backend
from finegrain.gallery.filters.conditions import (
    BUILT_IN,
    And,
    Comparison,
    Condition,
    Like,
    Membership,
    Operator,
    Or,
    Value,
)
from finegrain.gallery.filters.syntax import parse

_MOST_VALUES = 1000
_SHOWN = 8


def filter_notes(store: Backend, where: str) -> list[str]:
    """Notes on the columns and texts of a filter that no picture has.

    Raises:
        FilterError: The filter does not parse.
    """
    notes: list[str] = []
    for leaf in _leaves(parse(where, store.columns())):
        note = _reversed(leaf) or _note(store, leaf)
        if note is not None and note not in notes:
            notes.append(note)
    return notes


def _leaves(condition: Condition) -> Iterator[Condition]:
    pending = [condition]
    while pending:
        node = pending.pop(0)
        match node:
            case And(terms) | Or(terms):
                if _reversed(node) is not None:
                    yield node
                pending += terms
            case _:
                yield node


def _reversed(condition: Condition) -> str | None:
    """A note on ``between 20 and 10``, which no value matches."""
    match condition:
        case And((Comparison(column, ">=", low), Comparison(other, "<=" | "<" as symbol, high))):
            # Two comparisons that were written as one have the same position.
            if column == other and not _is_satisfiable(low, symbol, high):
                return f"the bounds of {column.name} match nothing: write the lower one first"
    return None


def _is_satisfiable(low: Value, symbol: Operator, high: Value) -> bool:
    if isinstance(low, str) and isinstance(high, str):
        return low < high or (symbol == "<=" and low == high)
    if isinstance(low, str) or isinstance(high, str):
        return False  # no value is both text and number
    return low <= high


def _note(store: Backend, leaf: Condition) -> str | None:
    values: tuple[Value, ...] = ()
    match leaf:
        case Comparison(column, "=" | "!=", value):
            values = (value,)
        case Membership(column, listed):
            values = listed
        case Comparison(column) | Like(column):
            pass
        case _:
            return None  # "is null" is meaningful for any column
    present = store.values(column.name, _MOST_VALUES)
    if not present:
        return f"no picture has a value in the column {column.name!r}"
    texts = [value for value in values if isinstance(value, str)]
    spelled = {str(value) for value in present}
    if (
        not texts
        or BUILT_IN.get(column.name) == "time"
        or len(present) == _MOST_VALUES
        or any(str(value) in spelled for value in values)
    ):
        return None
    return f"no picture has {column.name} = {texts[0]!r:.60}; {_suggestion(texts[0], spelled)}"


def _suggestion(text: str, present: set[str]) -> str:
    folded = {value.casefold(): value for value in sorted(present)}
    same_folded = folded.get(text.strip().casefold())
    if same_folded is not None:
        return f"there is {same_folded!r:.60}"
    close = [folded[name] for name in difflib.get_close_matches(text.casefold(), folded, n=3)]
    shown = close or sorted(present)[:_SHOWN]
    more = "" if close or len(present) <= _SHOWN else f" and {len(present) - _SHOWN} more"
    return f"there are {', '.join(f'{value!r:.60}' for value in shown)}{more}"
