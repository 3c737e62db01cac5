from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.catalog.markup import strip_html
from finegrain.data.catalog.prices import Price, parse_price
from finegrain.errors import DataError


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("12.50", Price(12.5)),
        ("12", Price(12.0)),
        ("12,50 €", Price(12.5, "EUR")),
        ("€12,5", Price(12.5, "EUR")),
        ("USD 12.50", Price(12.5, "USD")),
        ("12.50 USD", Price(12.5, "USD")),
        ("1,234.50 USD", Price(1234.5, "USD")),
        ("1.234,50\u00a0EUR", Price(1234.5, "EUR")),
        ("1 234 567,00 PLN", Price(1234567.0, "PLN")),
        ("1'234.50 CHF", Price(1234.5, "CHF")),
        ("1,234", Price(1234.0)),
        ("$5", Price(5.0, "$")),
        ("US$5", Price(5.0, "USD")),
        ("199 kr", Price(199.0, "kr")),
        ("₹1,29,999.00", Price(129_999.0, "INR")),
        ("1,23,456", Price(123_456.0)),
        ("₹ 12,34,56,789", Price(123_456_789.0, "INR")),
        ("Rs. 1,299", Price(1299.0, "Rs")),
        ("Rs.1,299/-", Price(1299.0, "Rs")),
        ("1.299,00 €", Price(1299.0, "EUR")),
        ("12.0000", Price(12.0)),
        ("249,- Kč", Price(249.0, "CZK")),
        ("1 299 ₽", Price(1299.0, "RUB")),
        ("1\u202f299,00\u00a0€", Price(1299.0, "EUR")),
        ("\uffe51,980", Price(1980.0, "¥")),
        ("\u0661\u0662\u066b\u0665", Price(12.5)),
    ],
)
def test_prices_are_read_in_the_formats_of_shops(text, price):
    assert parse_price(text) == price


@pytest.mark.parametrize(
    "text",
    ["", "free", "from 12.50", "12.50 - 20.00", "-5", "1.2.3", "0.125", "1,2,345", "USD 5 €",
     "12.", ".5", "1,234,56", "9" * 40, "1" + ",000" * 99, "1" + " " * 99999 + "?"],
)  # fmt: skip
def test_invalid_prices_are_refused(text):
    with pytest.raises(DataError, match="expected a price such as"):
        parse_price(text)


@given(
    st.integers(0, 10**9), st.integers(0, 99), st.sampled_from([(",", "."), (".", ","), (" ", ",")])
)
def test_prices_with_and_without_group_separators_agree(whole, cents, marks):
    group, point = marks
    grouped = f"{whole:,}".replace(",", group) + f"{point}{cents:02d} EUR"
    assert parse_price(grouped) == parse_price(f"{whole}.{cents:02d} EUR")
    assert parse_price(grouped).amount == pytest.approx(whole + cents / 100)


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_a_data_error(text):
    with contextlib.suppress(DataError):
        assert parse_price(text).amount >= 0


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("A plain  coat", "A plain coat"),
        ("<p>Warm &amp; <b>light</b>weight.</p><ul><li>Wool", "Warm & lightweight. Wool"),
        ("<ul><li>Wool</li><li>Red", "Wool Red"),
        ("<style>p { color: red }</style>Coat<br>Red<script>steal()</script>", "Coat Red"),
        ("5 < 6 & more", "5 < 6 & more"),
        ("", ""),
    ],
)  # fmt: skip
def test_markup_becomes_words(markup, text):
    assert strip_html(markup) == text
