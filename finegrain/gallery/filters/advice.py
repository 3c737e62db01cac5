"""What to say about a filter that finds little: columns and values that no picture has."""

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
    Not,
    Or,
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
        note = _note(store, leaf)
        if note is not None and note not in notes:
            notes.append(note)
    return notes


def _leaves(condition: Condition) -> Iterator[Condition]:
    pending = [condition]
    while pending:
        node = pending.pop(0)
        match node:
            case And(terms) | Or(terms):
                pending += terms
            case Not(term):
                pending.append(term)
            case _:
                yield node


def _note(store: Backend, leaf: Condition) -> str | None:
    match leaf:
        case Comparison(column, "=", value):
            asked = [value]
        case Membership(column, values, False):
            asked = list(values)
        case Comparison(column) | Like(column) | Membership(column):
            asked = []
        case _:
            return None  # whether a value is missing is a question that always has an answer
    present = store.values(column.name, _MOST_VALUES)
    if not present:
        return f"no picture has a value in the column {column.name!r}"
    texts = [value for value in asked if isinstance(value, str)]
    spelled = {str(value) for value in present}
    if (
        not texts
        or BUILT_IN.get(column.name) == "time"
        or len(present) == _MOST_VALUES
        or any(str(value) in spelled for value in asked)
    ):
        return None
    return f"no picture has {column.name} = {texts[0]!r:.60}; {_instead(texts[0], spelled)}"


def _instead(asked: str, present: set[str]) -> str:
    folded = {value.casefold(): value for value in sorted(present)}
    alike = folded.get(asked.strip().casefold())
    if alike is not None:
        return f"there is {alike!r:.60}"
    close = [folded[name] for name in difflib.get_close_matches(asked.casefold(), folded, n=3)]
    shown = close or sorted(present)[:_SHOWN]
    more = "" if close or len(present) <= _SHOWN else f" and {len(present) - _SHOWN} more"
    return f"there are {', '.join(f'{value!r:.60}' for value in shown)}{more}"
