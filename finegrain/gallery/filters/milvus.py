"""Compiling a ``where=`` expression to the expressions of Milvus.

Versions of Milvus differ in whether a comparison with a missing JSON key is true, false or
neither. The compiled expression does not depend on it: each comparison is combined with a test of
whether its value exists.

Integers and other numbers are stored under different keys, and a comparison is rewritten for each
of the two, because Milvus would compare integers with other numbers in double precision.

Values are written into the expression as quoted literals, because older versions of Milvus do not
support parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from finegrain.gallery.filters.conditions import (
    BUILT_IN,
    And,
    Column,
    Comparison,
    Condition,
    IsNull,
    Like,
    Membership,
    Operator,
    Or,
    Value,
    kind_of,
)

SlotKind = Literal["text", "whole", "real", "boolean"]

SLOT_KEYS: dict[SlotKind, str] = {"text": "t", "whole": "i", "real": "f", "boolean": "b"}
"""Letter before the name of a metadata column that states the kind of its value: ``i:price``."""

OWN_LETTER = "p"
"""Letter before a metadata key that is not a column of the user."""

TEXT_PID = f"{OWN_LETTER}:pid"
"""Metadata key of a pid that is a text. Numeric pids have a field of their own."""

ALWAYS = "id > 0"  # true for every picture
NEVER = "id < 0"

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def to_milvus(condition: Condition) -> str:
    """Compile a checked filter without ``like``; it matches the rows where ``evaluate`` is true."""
    match condition:
        case And(terms):
            return _join(" and ", map(to_milvus, terms))
        case Or(terms):
            return _join(" or ", map(to_milvus, terms))
        case IsNull(column, negated):
            return _present(column) if negated else _absent(column)
        case Comparison(column, "!=", value):
            return _different(column, (value,))
        case Comparison(column, operator, value):
            return _compare(column, operator, value)
        case Like():
            # The "like" of Milvus differs between versions and from ours, so the store replaces it.
            raise AssertionError("the store replaces like by a list of ids")
        case Membership(column, values, negated):
            return _different(column, values) if negated else _among(column, values)


def stored_text(value: str | None) -> str:
    """A text as stored in a field that cannot be null: empty for None, else ``=`` and the text."""
    return "" if value is None else f"={value}"


def quoted(text: str) -> str:
    """A text as a quoted literal."""
    return f'"{text.translate(_ESCAPES)}"'


class _Slot(NamedTuple):
    """Where the values of one kind of a column are stored.

    Attributes:
        kind: Kind of the values.
        field: Expression for the value.
        present: Condition that is true if there is a value.
        absent: Condition that is true if there is none.
    """

    kind: SlotKind
    field: str
    present: str
    absent: str


def _slots(column: Column) -> list[_Slot]:
    name = column.name
    if name == "id":
        return [_Slot("whole", "id", ALWAYS, NEVER)]
    if name == "pid":
        text = f'metadata["{TEXT_PID}"]'
        return [
            _Slot("whole", "pid", "has_pid == true", "has_pid == false"),
            _Slot("text", text, f"exists {text}", f"not (exists {text})"),
        ]
    if name in BUILT_IN:
        return [_Slot("text", name, f'{name} != ""', f'{name} == ""')]
    return [
        _Slot(kind, field, f"exists {field}", f"not (exists {field})")
        for kind, letter in SLOT_KEYS.items()
        for field in [f'metadata["{letter}:{name}"]']
    ]


def _present(column: Column) -> str:
    return _join(" or ", (slot.present for slot in _slots(column)))


def _absent(column: Column) -> str:
    return _join(" and ", (slot.absent for slot in _slots(column)))


def _among(column: Column, values: tuple[Value, ...]) -> str:
    if column.name == "id" and all(type(value) is int for value in values):
        # As one list, because servers reject an expression with hundreds of terms.
        return f"id in {list(values)}"
    return _join(" or ", (_compare(column, "=", value) for value in values))


def _different(column: Column, values: tuple[Value, ...]) -> str:
    """There is a value, and it equals none of ``values``; a value of another kind never does."""
    if column.name == "id" and all(type(value) is int for value in values):
        return f"id not in {list(values)}"
    tests = (
        _join(" or ", (slot.absent, _test(slot, "!=", value)))
        for value in values
        for slot in _slots(column)
        if _may_hold(slot, value)
    )
    return _join(" and ", (_present(column), *tests))


def _compare(column: Column, operator: Operator, value: Value) -> str:
    tests = [
        _join(" and ", (slot.present, _test(slot, operator, value)))
        for slot in _slots(column)
        if _may_hold(slot, value)
    ]
    return _join(" or ", tests) if tests else NEVER


def _may_hold(slot: _Slot, value: Value) -> bool:
    kind = kind_of(value)
    return slot.kind in ("whole", "real") if kind == "number" else slot.kind == kind


def _test(slot: _Slot, operator: Operator, value: Value) -> str:
    """The comparison, for rows that have a value in the slot."""
    if isinstance(value, bool):
        return f"{slot.field} {_symbol(operator)} {str(value).lower()}"
    if isinstance(value, str):
        text = value if slot.field.startswith("metadata") else stored_text(value)
        return f"{slot.field} {_symbol(operator)} {quoted(text)}"
    return (_test_whole if slot.kind == "whole" else _test_real)(slot.field, operator, value)


def _test_whole(field: str, operator: Operator, value: int | float) -> str:
    """Compare a 64-bit integer field with a number.

    The smallest integer, -2^63, needs care: Milvus cannot parse it as a literal.
    """
    if operator in ("=", "!="):
        if value != math.floor(value) or not _SMALLEST <= value <= _LARGEST:
            return NEVER if operator == "=" else ALWAYS
        if value == _SMALLEST:
            return f"{field} {'<' if operator == '=' else '>='} {_SMALLEST + 1}"
        return f"{field} {_symbol(operator)} {int(value)}"
    bound = math.ceil(value) if operator in ("<", ">=") else math.floor(value) + 1
    below = operator in ("<", "<=")
    if bound <= _SMALLEST:
        return NEVER if below else ALWAYS
    if bound > _LARGEST:
        return ALWAYS if below else NEVER
    return f"{field} {'<' if below else '>='} {bound}"


def _test_real(field: str, operator: Operator, value: int | float) -> str:
    """Compare a double field with a number, by the nearest double on the correct side of it."""
    near = float(value)
    if near != value:
        if operator in ("=", "!="):
            return NEVER if operator == "=" else ALWAYS
        upwards = operator in ("<", ">=")
        if (near < value) == upwards:
            near = math.nextafter(near, math.inf if upwards else -math.inf)
    return f"{field} {_symbol(operator)} {near!r}"


def _symbol(operator: Operator) -> str:
    return "==" if operator == "=" else operator


def _join(word: str, parts: Iterable[str]) -> str:
    return word.join(f"({part})" for part in parts)
