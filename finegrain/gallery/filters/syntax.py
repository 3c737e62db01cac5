"""Parsing a ``where=`` expression: grammar, limits and error messages."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken

from finegrain.errors import FilterError
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
    Operator,
    Or,
    Value,
    kind_of,
    opposite,
)
from finegrain.gallery.filters.meaning import (
    INT64,
    PositionedError,
    among,
    between,
    compared,
)
from finegrain.records import printable

MAX_LENGTH = 4096
"""Longest expression, in characters."""

MAX_PATTERN = 256
"""Longest pattern of ``like``, in characters. Searching a text takes up to their product."""

MAX_DEPTH = 16
"""Deepest nesting of ``and``, ``or`` and ``not``; redundant parentheses do not count."""


_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BUILT_IN_KINDS = {
    name: {"time": {"text"}, "key": {"number", "text"}}.get(kind, {kind})
    for name, kind in BUILT_IN.items()
}


def parse(expression: str, columns: Mapping[str, Collection[str]]) -> Condition:
    """Parse a filter and check it against the columns of a gallery.

    Args:
        expression: The text of ``where=``.
        columns: Kinds of value that each metadata column has held; :data:`BUILT_IN` has the rest.

    Raises:
        FilterError: The syntax is invalid, a column is unknown, a value is of a kind that its
            column never held, or the expression is too long or too deeply nested.
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
        _check_leaves(condition, {**_BUILT_IN_KINDS, **columns})
    except PositionedError as fault:
        fault.why += _hint(expression, fault.position, columns)
        raise FilterError(fault.message(expression)) from None
    return condition


def joined(expressions: Sequence[str]) -> str:
    """A filter that holds where each of several holds.

    Each is parsed alone first, so that none can close a parenthesis of another and widen it.

    Raises:
        FilterError: The syntax of one is invalid.

    Example:
        >>> joined(["price < 5 or stock = 1", "camera = 'a'"])
        "(price < 5 or stock = 1) and (camera = 'a')"
    """
    for expression in expressions:
        try:
            _read(expression)
        except PositionedError as fault:
            raise FilterError(fault.message(expression)) from None
    return " and ".join(f"({expression})" for expression in expressions)


_GRAMMAR = r"""
?start: either
?either: both (OR both)*
?both: negation (AND negation)*
?negation: NOT negation -> negate
    | "(" either ")"
    | column COMPARISON value -> compare
    | column BETWEEN value AND value -> bound
    | column NOT BETWEEN value AND value -> bound
    | column LIKE pattern -> resemble
    | column NOT LIKE pattern -> resemble
    | column IN "(" value ("," value)* ")" -> contain
    | column NOT IN "(" value ("," value)* ")" -> contain
    | column IS NULL -> is_null
    | column IS NOT NULL -> is_null
column: NAME | DOUBLE_QUOTED | BACKQUOTED
value: SINGLE_QUOTED | DOUBLE_QUOTED | NUMBER | TRUE | FALSE | NULL
pattern: SINGLE_QUOTED | DOUBLE_QUOTED

COMPARISON: "==" | "=" | "!=" | "<>" | "<=" | ">=" | "<" | ">"
SINGLE_QUOTED: /'(?:[^'\\]|\\.|'')*'/s
DOUBLE_QUOTED: /"(?:[^"\\]|\\.|"")*"/s
BACKQUOTED: /`(?:[^`\\]|\\.|``)*`/s
NUMBER: /[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])/
AND: /and\b/i
OR: /or\b/i
NOT: /not\b/i
IN: /in\b/i
BETWEEN: /between\b/i
LIKE: /like\b/i
IS: /is\b/i
NULL: /null\b/i
TRUE: /true\b/i
FALSE: /false\b/i
NAME: /(?!(?i:and|or|not|in|between|like|is|null|true|false)\b)[A-Za-z_][A-Za-z0-9_]*/
%ignore /\s+/
"""

_OTHER_SPELLINGS: Mapping[str, Operator] = {"==": "=", "<>": "!="}

_NO_ORDER = "true and false have no order; use = or !=."

_EXPECTED = {
    "NAME": "a column name",
    "COMPARISON": "a comparison (= != < <= > >=)",
    "SINGLE_QUOTED": "a value ('text', a number, true or false)",
    "IN": "'in'",
    "BETWEEN": "'between'",
    "LIKE": "'like'",
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
"""Names of tokens in messages, in this order. SINGLE_QUOTED stands for all kinds of values."""


@dataclass(frozen=True, slots=True)
class _Not:
    """``not`` as it was written; :func:`_resolved` replaces it."""

    term: Condition | _Not


class _Builder(Transformer[Token, Condition]):
    """Builds a node for each rule during parsing, without recursion."""

    def either(self, children: list[Any]) -> Or:
        return Or(tuple(children[::2]))  # every second child is a keyword

    def both(self, children: list[Any]) -> And:
        return And(tuple(children[::2]))

    def negate(self, children: list[Any]) -> _Not:
        return _Not(children[1])

    def compare(self, children: list[Any]) -> Condition:
        column, symbol, value = children
        if symbol in ORDERS and isinstance(value, bool):
            raise PositionedError(symbol.start_pos, _NO_ORDER)
        return compared(column, _OTHER_SPELLINGS.get(symbol.value, symbol.value), value)

    def contain(self, children: list[Any]) -> Condition:
        column, *words = (c for c in children if not _is_word(c, "IN"))
        negated = _is_word(words[0], "NOT")
        values = words[1:] if negated else words
        return among(column, values, negated=negated)

    def is_null(self, children: list[Any]) -> IsNull:
        return IsNull(children[0], negated=_is_word(children[2], "NOT"))

    def bound(self, children: list[Any]) -> Condition:
        column, low, high = (child for child in children if not isinstance(child, Token))
        for value in (low, high):
            if isinstance(value, bool):
                raise PositionedError(column.position, _NO_ORDER)
        return between(column, low, high, negated=_is_word(children[1], "NOT"))

    def resemble(self, children: list[Any]) -> Like:
        return Like(children[0], children[-1], negated=_is_word(children[1], "NOT"))

    def pattern(self, children: list[Token]) -> str:
        # Keep the escapes of % _ and the backslash, which have a meaning in the pattern.
        text = re.sub(r"\\([^%_\\])", r"\1", _inside(children[0]), flags=re.DOTALL)
        position = children[0].start_pos or 0
        if len(text) > MAX_PATTERN:
            raise PositionedError(
                position,
                f"the pattern has {len(text)} characters; at most {MAX_PATTERN} are searched for.",
            )
        return _encodable(text, position)

    def column(self, children: list[Token]) -> Column:
        token = children[0]
        position = token.start_pos or 0
        return Column(str(token) if token.type == "NAME" else _text(token, position), position)

    def value(self, children: list[Token]) -> Value:
        token = children[0]
        position = token.start_pos or 0
        if token.type == "NULL":
            raise PositionedError(
                position, "nothing compares with null; use 'is null' or 'is not null'."
            )
        if token.type in ("SINGLE_QUOTED", "DOUBLE_QUOTED"):
            return _text(token, position)
        if token.type == "NUMBER":
            return _number(token, position)
        return token.type == "TRUE"


def _is_word(child: object, word: str) -> bool:
    return isinstance(child, Token) and child.type == word


def _text(token: str, position: int) -> str:
    return _encodable(re.sub(r"\\(.)", r"\1", _inside(token), flags=re.DOTALL), position)


def _inside(token: str) -> str:
    """The text between the quotes of a token, where a doubled quote is one, as in SQL."""
    quote = re.escape(token[0])
    return re.sub(rf"(\\.)|({quote}){quote}", r"\1\2", token[1:-1], flags=re.DOTALL)


def _encodable(text: str, position: int) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PositionedError(
            position, "the string holds half a character (a lone surrogate)."
        ) from None
    return text


def _number(token: str, position: int) -> int | float:
    if token.lstrip("+-").isdigit():
        whole = int(token)
        if whole not in INT64:
            raise PositionedError(
                position,
                "whole numbers have at most 64 bits; longer ones are text: write it in quotes.",
            )
        return whole
    number = float(token)
    if not math.isfinite(number):
        raise PositionedError(position, "the number is too large.")
    return number


def _hint(expression: str, position: int, columns: Iterable[str]) -> str:
    """A hint about quotes if the expression names a column without the quotes it needs."""
    for column in columns:
        at = expression.casefold().find(column.casefold())
        if column and not _PLAIN.fullmatch(column) and 0 <= at <= position <= at + len(column):
            return f" Write that column as {_quoted(column)}, in double quotes."
    return ""


@functools.cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


@functools.lru_cache(maxsize=256)
def _read(expression: str) -> Condition:
    """The conditions of an expression; a service searches with the same few filters."""
    try:
        written: Condition | _Not = _parser().parse(expression)  # type: ignore[assignment]
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        position = len(expression) if at_end else error.token.start_pos or 0
        got = "it ends here" if at_end else f"got {str(error.token)[:40]!r}"
        raise PositionedError(
            position, f"expected {_expectation(error.expected)}; {got}."
        ) from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        word = expression[position:].split()[0][:40]
        if word[0] in "'\"`":
            raise PositionedError(position, "this string is never closed.") from None
        if word[0] in "“”„‘’«»":
            raise PositionedError(
                position, "write text in straight quotes, as in 'text'."
            ) from None
        why = f"expected {_expectation(error.allowed)}; got {word!r}."
        raise PositionedError(position, why) from None
    _check_depth(written)
    return _resolved(written)


def _expectation(tokens: Collection[str]) -> str:
    # null parses as a value only to give a better error message, so do not suggest it.
    offered = set(tokens) - ({"NULL"} if "SINGLE_QUOTED" in tokens else set())
    names = [name for token, name in _EXPECTED.items() if token in offered]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _check_depth(written: Condition | _Not) -> None:
    """Not recursive, because the depth is not yet known."""
    pending = [(written, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise FilterError(
                f"The filter nests deeper than {MAX_DEPTH} levels of and, or and not. Flatten it."
            )
        match node:
            case And(terms) | Or(terms):
                below = depth if _is_one_comparison(terms) else depth + 1
                pending += [(term, below) for term in terms]
            case _Not(term):
                pending.append((term, depth + 1))


def _resolved(written: Condition | _Not) -> Condition:
    """The condition without ``not``, which moves into the comparisons."""
    match written:
        case _Not(term):
            return opposite(_resolved(term))
        case And(terms) | Or(terms):
            return type(written)(tuple(map(_resolved, terms)))
        case _:
            return written


def _check_leaves(condition: Condition, columns: Mapping[str, Collection[str]]) -> None:
    """Check the columns and the kinds of the values."""
    match condition:
        case And(terms) | Or(terms):
            for term in terms:
                _check_leaves(term, columns)
        case Comparison(column, _, value):
            _check_column(column, (value,), columns)
        case Like(column):
            _check_column(column, ("",), columns)
        case Membership(column, values, _):
            _check_column(column, values, columns)
        case IsNull(column, _):
            _check_column(column, (), columns)


def _is_one_comparison(terms: Sequence[Condition | _Not]) -> bool:
    """Whether terms come from one written comparison, such as a date that became two bounds."""
    leaves = [leaf for term in terms for leaf in _leaves_of(term)]
    places = {leaf.column.position for leaf in leaves if isinstance(leaf, Comparison)}
    return len(places) == 1 and all(isinstance(leaf, Comparison) for leaf in leaves)


def _leaves_of(term: Condition | _Not) -> tuple[Condition | _Not, ...]:
    return term.terms if isinstance(term, And | Or) else (term,)


def unknown_column(name: str, columns: Iterable[str]) -> str:
    """Message for an unknown column, with the most similar name and the known columns."""
    known = sorted(columns)
    alike = {_plain_name(column): column for column in known}
    close = difflib.get_close_matches(_plain_name(name), alike, n=1)
    hint = f" Did you mean {_quoted(alike[close[0]])}?" if close else ""
    names = printable(", ".join(known[:40]))
    return f"unknown column {name!r:.60}.{hint} Known are: {names}."


def _quoted(column: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", column)
    return column if _PLAIN.fullmatch(column) else f'"{escaped}"'


def _plain_name(column: str) -> str:
    """A name without case and punctuation, so that ``base_colour`` is close to ``Base Colour``."""
    return re.sub(r"[\W_]+", " ", column).casefold()


def _check_column(
    column: Column, values: tuple[Value, ...], columns: Mapping[str, Collection[str]]
) -> None:
    if column.name not in columns:
        raise PositionedError(column.position, unknown_column(column.name, columns))
    kinds = columns[column.name]
    for value in values:
        if kinds and kind_of(value) not in kinds:
            raise PositionedError(
                column.position,
                f"{column.name} holds {' and '.join(sorted(kinds))}, and {value!r:.40} is "
                f"{kind_of(value)}.{_requoted(value, kinds)}",
            )


def _requoted(value: Value, kinds: Collection[str]) -> str:
    """A hint if the value is of the column's kind with other quotes."""
    if not isinstance(value, str):
        return " Write it in quotes." if "text" in kinds else ""
    is_number = "number" in kinds and _PLAIN_NUMBER.fullmatch(value)
    is_boolean = "boolean" in kinds and value in ("true", "false")
    return " Write it without quotes." if is_number or is_boolean else ""
