"""Parses prices in the notations of shops."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from finegrain.errors import DataError

_CURRENCY = r"[A-Z]{3}|[A-Z]{0,3}[$€£¥₹₩₺₽฿₫₪₴₦₱]|(?:Rs|руб|kr)\.?|zł|Kč|Ft|Fr\.|lei|р\.|元|円"
_PRICE = re.compile(
    rf"(?P<before>{_CURRENCY})?\s*(?P<amount>[0-9][0-9.,' \u2019]*?(?:[.,][-–])?)\s*"
    rf"(?P<after>{_CURRENCY})?"
)
_GROUPED = re.compile(
    r"[1-9][0-9]{0,2}(?P<group>[.,' \u2019])[0-9]{3}(?:(?P=group)[0-9]{3}){0,3}"
    r"(?:(?!(?P=group))[.,](?P<cents>[0-9]{1,2}))?"
)
# 12,34,567.00: Indian prices have groups of two digits above the thousands
_INDIAN = re.compile(r"[1-9][0-9]?(?:,[0-9]{2}){1,4},[0-9]{3}(?:\.(?P<cents>[0-9]{1,2}))?")
_PLAIN = re.compile(
    r"(?P<whole>[0-9]{1,12})(?:[.,](?P<cents>[0-9]{1,2}|[0-9]{1,2}0{1,4})|[.,][-–])?"
)
_MAX_LENGTH = 40
_CODES = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "руб": "RUB", "р": "RUB",
    "₺": "TRY", "₩": "KRW", "₪": "ILS", "₴": "UAH", "₫": "VND", "฿": "THB", "₦": "NGN",
    "₱": "PHP", "zł": "PLN", "Kč": "CZK", "Ft": "HUF", "US$": "USD", "元": "CNY", "円": "JPY",
}  # fmt: skip
"""Symbols of one currency. ``$``, ``¥`` and ``kr`` are used for several."""


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of money.

    Attributes:
        amount: Amount in whole units.
        currency: ISO 4217 code, or the symbol if several currencies use it, such as ``$``. None
            if there is no currency.
    """

    amount: float
    currency: str | None = None


def parse_price(text: str) -> Price:
    """Read a price: ``12.50``, ``12,50 €``, ``USD 1,234.50``, ``1.234,50 EUR``, ``₹1,29,999.00``.

    Three digits after a single mark are thousands, because cents have at most two digits.

    Raises:
        DataError: The text is not a price.
    """
    if len(text) > _MAX_LENGTH:
        raise _no_price(text)
    plain = _with_usual_characters(text).strip().removesuffix("/-")
    match = _PRICE.fullmatch(plain)
    if match is None or (match["before"] and match["after"]):
        raise _no_price(text)
    currency = (match["before"] or match["after"] or "").rstrip(".") or None
    return Price(_amount(match["amount"], text), _CODES.get(currency or "", currency))


def _with_usual_characters(text: str) -> str:
    """Other spaces, full-width signs and the digits of other scripts as those of ASCII."""
    wide = unicodedata.normalize("NFKC", text).translate({0x66B: ".", 0x66C: ","})
    return "".join(str(unicodedata.decimal(c, c)) for c in wide)


def _amount(digits: str, text: str) -> float:
    if grouped := _GROUPED.fullmatch(digits) or _INDIAN.fullmatch(digits):
        whole = digits[: grouped.start("cents") - 1] if grouped["cents"] else digits
        return float(f"{re.sub('[^0-9]', '', whole)}.{grouped['cents'] or 0}")
    if plain := _PLAIN.fullmatch(digits):
        return float(f"{plain['whole']}.{plain['cents'] or 0}")
    raise _no_price(text)


def _no_price(text: str) -> DataError:
    return DataError(f"expected a price such as '12.50' or '12,50 €', got {text!r:.60}")
