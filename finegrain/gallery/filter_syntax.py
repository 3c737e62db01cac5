"""Reading a ``where=`` expression: its grammar, its limits and its error messages."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken

from finegrain.errors import FilterError
from finegrain.gallery.filters import (
    BUILT_IN,
    ORDERS,
    And,
    Column,
    Comparison,
    Condition,
    IsNull,
    Membership,
    Not,
    Or,
    Value,
    kind_of,
)
from finegrain.gallery.times import utc_text

MAX_LENGTH = 4096
"""Longest expression, in characters."""

MAX_DEPTH = 16
"""Deepest nesting of ``and``, ``or`` and ``not``; redundant parentheses do not count."""


_BUILT_IN_KINDS = {
    name: {"time": {"text"}, "key": {"number", "text"}}.get(kind, {kind})
    for name, kind in BUILT_IN.items()
}


def parse(expression: str, columns: Mapping[str, Collection[str]]) -> Condition:
    """Read a filter and check it against the columns of a gallery.

    Args:
        expression: The text of ``where=``.
        columns: Kinds of value seen in each metadata column; see :data:`BUILT_IN` for the rest.

    Raises:
        FilterError: Bad syntax, an unknown column, a value of a kind that its column never
            held, or an expression that is too long or too deep.
    """
    if not isinstance(expression, str):
        raise FilterError(
            f"A filter is text such as \"camera = 'gate-3'\"; got {type(expression).__name__}."
        )
    if len(expression) > MAX_LENGTH:
        raise FilterError(
            f"The filter has {len(expression)} characters; at most {MAX_LENGTH} are read. "
            "Put a long list of values into a metadata column instead."
        )
    try:
        condition = _read(expression)
        _check(condition, {**_BUILT_IN_KINDS, **columns})
    except _PositionedError as fault:
        raise FilterError(fault.message(expression)) from None
    return condition


class _PositionedError(Exception):
    """Something wrong at one position of the expression."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(why)
        self.position = position
        self.why = why

    def message(self, expression: str) -> str:
        # The caret needs one line and one cell per character, whatever was typed.
        line = "".join(c if c.isprintable() else " " for c in expression)
        start = max(0, self.position - 60)
        shown = line[start : self.position + 40]
        return (
            f"The filter is wrong at character {self.position + 1}: {self.why}\n"
            f"  {shown}\n"
            f"  {' ' * (self.position - start)}^"
        )


_GRAMMAR = r"""
?start: either
?either: both (OR both)*
?both: negation (AND negation)*
?negation: NOT negation -> negate
    | "(" either ")"
    | column COMPARISON value -> compare
    | column IN "(" value ("," value)* ")" -> contain
    | column NOT IN "(" value ("," value)* ")" -> contain
    | column IS NULL -> is_null
    | column IS NOT NULL -> is_null
column: NAME
value: STRING | NUMBER | TRUE | FALSE | NULL

COMPARISON: "==" | "=" | "!=" | "<=" | ">=" | "<" | ">"
STRING: /'(?:[^'\\]|\\.)*'/s | /"(?:[^"\\]|\\.)*"/s
NUMBER: /[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])/
AND: /and\b/i
OR: /or\b/i
NOT: /not\b/i
IN: /in\b/i
IS: /is\b/i
NULL: /null\b/i
TRUE: /true\b/i
FALSE: /false\b/i
NAME: /(?!(?i:and|or|not|in|is|null|true|false)\b)[A-Za-z_][A-Za-z0-9_]*/
%ignore /\s+/
"""

_EXPECTED = {
    "NAME": "a column name",
    "COMPARISON": "a comparison (= != < <= > >=)",
    "STRING": "a value ('text', a number, true or false)",
    "IN": "'in'",
    "IS": "'is'",
    "NOT": "'not'",
    "AND": "'and'",
    "OR": "'or'",
    "NULL": "'null'",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}
"""What tokens are called in a message, in this order; the other values go with STRING."""

_INT64 = range(-(2**63), 2**63)
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class _Builder(Transformer[Token, Condition]):
    """Makes a node of each rule while the parser reduces it, so nothing recurses."""

    def either(self, children: list[Any]) -> Or:
        return Or(tuple(children[::2]))  # between the terms stand the key words

    def both(self, children: list[Any]) -> And:
        return And(tuple(children[::2]))

    def negate(self, children: list[Any]) -> Not:
        return Not(children[1])

    def compare(self, children: list[Any]) -> Comparison | Membership:
        column, symbol, value = children
        if symbol in ORDERS and isinstance(value, bool):
            raise _PositionedError(symbol.start_pos, "true and false have no order; use = or !=.")
        if BUILT_IN.get(column.name) == "key" and symbol not in ORDERS:
            return Membership(column, _spellings(value), negated=symbol == "!=")
        return Comparison(column, "=" if symbol == "==" else symbol.value, _fitted(column, value))

    def contain(self, children: list[Any]) -> Membership:
        column, *words = (c for c in children if not _is_word(c, "IN"))
        negated = _is_word(words[0], "NOT")
        values = words[1:] if negated else words
        if BUILT_IN.get(column.name) == "key":
            values = list(chain.from_iterable(map(_spellings, values)))
        return Membership(column, tuple(_fitted(column, value) for value in values), negated)

    def is_null(self, children: list[Any]) -> IsNull:
        return IsNull(children[0], negated=_is_word(children[2], "NOT"))

    def column(self, children: list[Token]) -> Column:
        return Column(str(children[0]), children[0].start_pos or 0)

    def value(self, children: list[Token]) -> Value:
        token = children[0]
        position = token.start_pos or 0
        if token.type == "NULL":
            raise _PositionedError(
                position, "nothing compares with null; use 'is null' or 'is not null'."
            )
        if token.type == "STRING":
            return _text(token, position)
        if token.type == "NUMBER":
            return _number(token, position)
        return token.type == "TRUE"


def _fitted(column: Column, value: Value) -> Value:
    """The value in the form that its column is kept in."""
    if BUILT_IN.get(column.name) != "time":
        return value
    try:
        if isinstance(value, str):
            return utc_text(value)
    except ValueError:
        pass  # refused like a number
    raise _PositionedError(
        column.position,
        f"{column.name} compares with a time such as '2026-05-01' or '2026-05-01T08:00' (UTC, "
        f"or with an offset as in '2026-05-01T08:00+02:00'); got {value!r:.40}.",
    )


def _spellings(value: Value) -> tuple[Value, ...]:
    """The number and the text that are spelled like a value."""
    if isinstance(value, bool):
        return (value,)  # which is refused, as no key is one
    if isinstance(value, float) and value.is_integer() and int(value) in _INT64:
        value = int(value)
    if not isinstance(value, str):
        return value, str(value)
    number = int(value) if _WHOLE_NUMBER.fullmatch(value) else None
    return (value,) if number is None or number not in _INT64 else (number, value)


def _is_word(child: object, word: str) -> bool:
    return isinstance(child, Token) and child.type == word


def _text(token: str, position: int) -> str:
    text = re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _PositionedError(
            position, "the string holds half a character (a lone surrogate)."
        ) from None
    return text


def _number(token: str, position: int) -> int | float:
    if token.lstrip("+-").isdigit():
        whole = int(token)
        if whole not in _INT64:
            raise _PositionedError(position, "whole numbers have at most 64 bits.")
        return whole
    number = float(token)
    if not math.isfinite(number):
        raise _PositionedError(position, "the number is too large.")
    return number


@functools.cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


def _read(expression: str) -> Condition:
    try:
        condition: Condition = _parser().parse(expression)  # type: ignore[assignment]
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        position = len(expression) if at_end else error.token.start_pos or 0
        found = "it ends here" if at_end else f"got {str(error.token)[:40]!r}"
        raise _PositionedError(
            position, f"expected {_expectation(error.expected)}; {found}."
        ) from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        word = expression[position:].split()[0][:40]
        if word[0] in "'\"":
            raise _PositionedError(position, "this string is never closed.") from None
        why = f"expected {_expectation(error.allowed)}; got {word!r}."
        raise _PositionedError(position, why) from None
    return condition


def _expectation(tokens: Collection[str]) -> str:
    # null parses as a value only to be refused with a hint, so it is never offered as one
    offered = set(tokens) - ({"NULL"} if "STRING" in tokens else set())
    names = [name for token, name in _EXPECTED.items() if token in offered]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _check(condition: Condition, columns: Mapping[str, Collection[str]]) -> None:
    """Walk without recursion: the depth is what is being checked."""
    pending = [(condition, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise FilterError(
                f"The filter nests deeper than {MAX_DEPTH} levels of and, or and not. Flatten it."
            )
        match node:
            case And(terms) | Or(terms):
                pending += [(term, depth + 1) for term in terms]
            case Not(term):
                pending.append((term, depth + 1))
            case Comparison(column, _, value):
                _check_column(column, (value,), columns)
            case Membership(column, values, _):
                _check_column(column, values, columns)
            case IsNull(column, _):
                _check_column(column, (), columns)


def unknown_column(name: str, columns: Iterable[str]) -> str:
    """That there is no such column, which was perhaps meant, and which there are."""
    known = sorted(columns)
    alike = {_plain_name(column): column for column in known}
    close = difflib.get_close_matches(_plain_name(name), alike, n=1)
    hint = f" Did you mean {alike[close[0]]}?" if close else ""
    return f"unknown column {name!r:.60}.{hint} Known are: {', '.join(known[:40])}."


def _plain_name(column: str) -> str:
    """A name without case and signs: ``Base Colour`` is looked for as ``base_colour`` too."""
    return re.sub(r"[\W_]+", " ", column).casefold()


def _check_column(
    column: Column, values: tuple[Value, ...], columns: Mapping[str, Collection[str]]
) -> None:
    if column.name not in columns:
        raise _PositionedError(column.position, unknown_column(column.name, columns))
    kinds = columns[column.name]
    for value in values:
        if kinds and kind_of(value) not in kinds:
            raise _PositionedError(
                column.position,
                f"{column.name} holds {' and '.join(sorted(kinds))}, and {value!r:.40} is "
                f"{kind_of(value)}.",
            )
