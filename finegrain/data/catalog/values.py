"""Converts cells to values of metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finegrain.data.catalog.prices import Price, parse_price
from finegrain.errors import DataError
from finegrain.records import Scalar

Metadata = Mapping[str, Scalar]

_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,30})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")
_EXACT_DIGITS = 15
"""Number of decimal digits that a float represents exactly."""


def scalar(value: Any) -> Scalar:
    """A cell as a value of metadata: blanks and NaN become None, and dates become text."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


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
        is_text: Whether the format stores cells as text. Then columns of integers, numbers,
            booleans or prices are converted. Codes with leading zeros and numbers with more
            digits than a float can represent stay text. In other formats, only integers of more
            than 64 bits become text, with all numbers of their column.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    convert = _text_converter if is_text else _typed_converter
    converters = {name: convert([row.get(name) for row in rows]) for name in names}
    converted: list[Metadata] = [
        {name: None if cell is None else converters[name](cell) for name, cell in row.items()}
        for row in rows
    ]
    return _with_prices(converted) if is_text else converted


def _typed_converter(cells: Sequence[Scalar]) -> Callable[[Any], Scalar]:
    wide = any(_is_whole(cell) and cell not in _INT64 for cell in cells)
    return (lambda cell: str(cell) if _is_whole(cell) else cell) if wide else (lambda cell: cell)


def _is_whole(cell: Scalar) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def _text_converter(cells: Sequence[Scalar]) -> Callable[[Any], Scalar]:
    texts = [str(cell) for cell in cells if cell is not None]
    if all(text.lower() in ("true", "false") for text in texts):
        return lambda text: str(text).lower() == "true"
    if all(_INTEGER.fullmatch(text) for text in texts):
        return int if all(int(text) in _INT64 for text in texts) else str
    # An article number such as 00123 is a name, not a quantity.
    if all(map(_is_exact, texts)) and not any(_LEADING_ZERO.fullmatch(text) for text in texts):
        return float
    return str


def _is_exact(text: str) -> bool:
    """Whether a float represents the text exactly."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return False
    digits = re.sub("[eE].*|[^0-9]", "", text).strip("0")
    return len(digits) <= _EXACT_DIGITS


def _with_prices(rows: list[Metadata]) -> list[Metadata]:
    """Split ``price`` into a number and a currency if every cell of the column is a price."""
    written = [row.get("price") for row in rows]
    if all(cell is None or not isinstance(cell, str) for cell in written):
        return rows
    try:
        prices = [None if cell is None else parse_price(str(cell)) for cell in written]
    except DataError:
        return rows
    if any(_LEADING_ZERO.fullmatch(str(cell)) for cell in written):
        return rows
    return [_priced(row, price) for row, price in zip(rows, prices, strict=True)]


def _priced(row: Metadata, price: Price | None) -> Metadata:
    if price is None:
        return row
    currency = {} if "currency" in row else {"currency": price.currency}
    return {**row, "price": price.amount, **currency}
