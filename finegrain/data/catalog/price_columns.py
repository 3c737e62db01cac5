"""Converts columns of prices to numbers with currencies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from finegrain.data.catalog.columns import normal_name
from finegrain.data.catalog.prices import Price, parse_price
from finegrain.data.catalog.values import LEADING_ZERO, MISSING, Metadata, by_column
from finegrain.errors import DataError
from finegrain.records import Scalar

_PRICE = "price"


def with_prices(rows: Sequence[Metadata]) -> tuple[list[Metadata], Mapping[int, list[str]]]:
    """Divide each column of prices into numbers and currencies.

    A column of prices has ``price`` in its name, and at least half of its texts are prices; or
    each of its texts is a price with a currency. The currencies of ``price`` become the column
    ``currency``, and those of another column ``x`` become ``x_currency``, unless it exists.

    Returns:
        The rows; and for the places of rows with invalid prices, which are left empty, the
        reasons.
    """
    converted = [dict(row) for row in rows]
    odd: dict[int, list[str]] = defaultdict(list)
    columns = by_column(rows)
    for name, cells in columns.items():
        prices = _prices(name, list(cells.values()))
        if prices is None:
            continue
        beside = "currency" if normal_name(name) == _PRICE else f"{name}_currency"
        for (place, cell), price in zip(cells.items(), prices, strict=True):
            converted[place][name] = None if price is None else price.amount
            if price is not None and beside not in columns:
                converted[place][beside] = price.currency
            if price is None and not _is_missing(cell):
                odd[place].append(f"{name!r} is no price: {cell!r:.40}; left empty")
    return list(converted), odd


def _prices(name: str, cells: Sequence[Scalar]) -> list[Price | None] | None:
    """The prices of a column, or None if it is no column of prices."""
    texts = [cell for cell in cells if isinstance(cell, str) and not _is_missing(cell)]
    if not texts or any(map(LEADING_ZERO.fullmatch, texts)):
        return None
    prices = [_price(cell) for cell in cells]
    num_prices = sum(price is not None for price in prices)
    num_filled = sum(not _is_missing(cell) for cell in cells)
    if _PRICE in normal_name(name).split():
        return prices if 2 * num_prices >= num_filled else None
    have_currencies = all(price is None or price.currency is not None for price in prices)
    return prices if num_prices == num_filled and have_currencies else None


def _price(cell: Scalar) -> Price | None:
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return Price(float(cell))
    try:
        return parse_price(cell) if isinstance(cell, str) else None
    except DataError:
        return None


def _is_missing(cell: Scalar) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in MISSING)
