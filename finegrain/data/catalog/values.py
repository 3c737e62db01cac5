"""Converts cells to values of metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from finegrain.records import Scalar

Metadata = Mapping[str, Scalar]

_INT64 = range(-(2**63), 2**63)
# A plus stays text, as in +49170, and so does 12E4, which may be the code of an article.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,30})")
_NUMBER = re.compile(r"-?([0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-][0-9]+)")
LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")
"""Codes such as 00123, which are names and no quantities."""

MISSING = frozenset(["na", "n/a", "#n/a", "nan", "null", "none", "-", "\u2013", "\u2014"])
"""Texts in lower case that stand for no value in columns of numbers and prices."""

# 1,234.50 and 1.234,50, also with spaces or apostrophes between groups
_GROUPED = re.compile(r"-?[0-9]{1,3}(?P<group>[,.' \u00a0\u202f\u2019])[0-9]{3}"
                      r"((?P=group)[0-9]{3})*((?!(?P=group))(?P<point>[.,])[0-9]+)?")  # fmt: skip
_EXACT_DIGITS = 15
"""Number of decimal digits that a float represents exactly."""


def scalar(value: Any) -> Scalar:
    """A cell as a value of metadata: blanks, NaN and binary data become None, dates text."""
    if isinstance(value, bytes):  # Parquet may store texts so
        value = _decoded(value)
    if isinstance(value, Decimal):
        digits = len(value.as_tuple().digits) if value.is_finite() else 0
        value = float(value) if digits <= _EXACT_DIGITS else str(value)
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _decoded(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def name_of(value: Any) -> str | None:
    """A cell that is a name, such as the camera 3. Numbers are returned as they are written."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    plain = scalar(value)
    return None if plain is None else str(plain)


def of_one_type(rows: Sequence[Metadata], *, is_text: bool) -> list[Metadata]:
    """Convert each column to one type if no information is lost.

    Args:
        rows: Rows of one table. A row may lack columns.
        is_text: Whether the format stores cells as text. Then columns of integers, numbers
            or booleans are converted. Codes with leading zeros and numbers with more digits
            than a float can represent stay text. In other formats, only integers of more than 64
            bits become text, with all numbers of their column.
    """
    convert = _text_converter if is_text else _typed_converter
    converters = {name: convert(list(cells.values())) for name, cells in by_column(rows).items()}
    return [
        {name: None if cell is None else converters[name](cell) for name, cell in row.items()}
        for row in rows
    ]


def by_column(rows: Sequence[Metadata]) -> dict[str, dict[int, Scalar]]:
    """The cells of each column by the places of their rows.

    A row without a column adds nothing to it, so the work is that of the cells, also if each row
    has a column of its own.
    """
    columns: dict[str, dict[int, Scalar]] = {}
    for place, row in enumerate(rows):
        for name, cell in row.items():
            columns.setdefault(name, {})[place] = cell
    return columns


def _typed_converter(cells: Sequence[Scalar]) -> Callable[[Any], Scalar]:
    wide = any(_is_whole(cell) and cell not in _INT64 for cell in cells)
    return (lambda cell: str(cell) if _is_whole(cell) else cell) if wide else (lambda cell: cell)


def _is_whole(cell: Scalar) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def _text_converter(cells: Sequence[Scalar]) -> Callable[[Any], Scalar]:
    texts = [str(cell) for cell in cells if cell is not None]
    filled = [text for text in texts if text.lower() not in MISSING]
    if filled and len(filled) < len(texts):
        convert = _text_converter(filled)
        is_missing = MISSING.__contains__
        # in a column of names, NA is a name
        return (
            convert if convert is str else lambda t: None if is_missing(t.lower()) else convert(t)
        )
    if point := _decimal_point(texts):
        return lambda text: _plain_number(text, point)
    if all(text.lower() in ("true", "false") for text in texts):
        return lambda text: str(text).lower() == "true"
    if all(_INTEGER.fullmatch(text) for text in texts):
        return int if all(int(text) in _INT64 for text in texts) else str
    # An article number such as 00123 is a name, not a quantity.
    if all(map(_is_exact, texts)) and not any(LEADING_ZERO.fullmatch(text) for text in texts):
        return float
    return str


def _decimal_point(texts: Sequence[str]) -> str | None:
    """The decimal point of a column in which some numbers have thousands separators.

    None if all numbers are plain, if a text is no number, or if the convention is uncertain: 1,234
    alone may be thousands or have a decimal comma.
    """
    matches = [match for match in map(_GROUPED.fullmatch, texts) if match is not None]
    pairs = [match for match in matches if match["point"]]
    long = [match for match in matches if match[0].count(match["group"]) > 1]
    points = {match["point"] for match in pairs}
    points |= {"," if match["group"] == "." else "." for match in long if match["group"] in ".,"}
    if not points and any(match["group"] not in ".," for match in matches):
        points = {"."}
    if len(points) != 1:
        return None
    (point,) = points
    plain = re.compile(rf"-?[0-9]+(\{point}[0-9]+)?")
    for text in texts:
        match = _GROUPED.fullmatch(text)
        is_grouped = (
            match is not None and match["group"] != point and match["point"] in (None, point)
        )
        if not (is_grouped or plain.fullmatch(text)) or LEADING_ZERO.match(text):
            return None
    return point


def _plain_number(text: str, point: str) -> float:
    whole, _, decimals = text.partition(point)
    return float(f"{re.sub('[^0-9-]', '', whole)}.{decimals}")


def _is_exact(text: str) -> bool:
    """Whether a float represents the text exactly."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return False
    digits = re.sub("[eE].*|[^0-9]", "", text).strip("0")
    return len(digits) <= _EXACT_DIGITS
