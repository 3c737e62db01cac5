"""Parses times in tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from finegrain.errors import DataError
from finegrain.times import utc_text

_KNOWN = (
    (re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d"), "%Y:%m:%d %H:%M:%S"),  # EXIF
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2}"), "%Y/%m/%d"),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d\d"), "%Y/%m/%d %H:%M"),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d\d:\d\d"), "%Y/%m/%d %H:%M:%S"),
    (re.compile(r"\d{14}"), "%Y%m%d%H%M%S"),
)
"""Formats that numbers alone make unambiguous."""

DateOrder = Literal["day", "month"]
"""Which of the first two numbers of a date comes first."""

_YEAR_LAST = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?P<time>,? \d{1,2}:\d\d(:\d\d)?( ?[AaPp][Mm])?)?"
)
"""Dates such as 05/01/2026, in May or in January. With dots the day comes first, unless a column
shows that it does not."""

_CJK = re.compile(
    r"(\d{4})[年년] ?(\d{1,2})[月월] ?(\d{1,2})[日일]"
    r"( ?(\d{1,2})[:：时時시] ?(\d{1,2})([:：分분] ?(\d{1,2})秒?초?)?分?분?)?"
)
"""Dates as in Chinese, Japanese and Korean."""

_MONTH_NAMES = tuple(
    date + time
    for date in ("%d %B %Y", "%d %b %Y", "%d-%b-%Y", "%B %d, %Y", "%b %d, %Y")
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
)
_HAS_MONTH_NAME = re.compile(r"[0-9]{0,2}[ -]?[A-Z][a-z]{2,8}[ -][0-9].{0,30}")

_INTERNET = re.compile(
    r"([A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(:\d\d)?( GMT| UTC?| [+-]\d{4})?"
)
"""Times of e-mail, HTTP and RSS."""

_SPACED_OFFSET = re.compile(r"(?<=\d) (?=[+-]\d\d:?\d\d$)")
_SPACED_UTC = re.compile(r"(?<=\d) (?:UTC|GMT|Z)$")

_EPOCH = re.compile(r"[1-9]\d{8,9}(\d{3})?(\.\d+)?")
_TOO_LONG = 60


class AmbiguousTimeError(DataError):
    """The day and the month of a date cannot be distinguished."""


def date_order(values: Iterable[Any]) -> DateOrder | None:
    """The order of day and month in the dates of a column, such as 05/31/2026.

    A number above 12 is a day. None if no date or dates of both orders show the order.
    """
    orders: set[DateOrder] = set()
    for value in values:
        match = _YEAR_LAST.fullmatch(_plain(value))
        if match is not None and (own := _own_order(match)) is not None:
            orders.add(own)
    return orders.pop() if len(orders) == 1 else None


def parse_time(
    value: Any, time_format: str | None = None, *, order: DateOrder | None = None
) -> str:
    """Parse the time in a cell, and return it in the form that a gallery stores.

    Args:
        value: Text, or seconds or milliseconds since 1970 as a number or text.
        time_format: A format of :meth:`datetime.datetime.strptime`. Without one, ISO 8601, the
            year first with slashes, dates with the year last, dates with Chinese, Japanese or
            Korean words or English names of months, the formats of EXIF and of e-mail, and Unix
            time are read. A time without an offset is UTC.
        order: Order of day and month in the column; see :func:`date_order`.

    Raises:
        AmbiguousTimeError: It may be two dates, and there is no order.
        DataError: The value is in none of these formats.
    """
    text = _plain(value)
    try:
        if time_format is not None:
            return utc_text(datetime.strptime(text, time_format))
        if _EPOCH.fullmatch(text):
            seconds = float(text)
            return utc_text(datetime.fromtimestamp(seconds / (1000 if seconds > 1e11 else 1), UTC))
        for pattern, known in _KNOWN:
            if pattern.fullmatch(text):
                return utc_text(datetime.strptime(text, known))
        if match := _YEAR_LAST.fullmatch(text):
            return utc_text(_with_year_last(match, order))
        if match := _CJK.fullmatch(text):
            year, month, day, hour, minute, second = (
                int(number or 0) for number in match.group(1, 2, 3, 5, 6, 8)
            )
            return utc_text(datetime(year, month, day, hour, minute, second))
        if _INTERNET.fullmatch(text):
            return utc_text(parsedate_to_datetime(text))
        if _HAS_MONTH_NAME.fullmatch(text):
            return utc_text(_with_month_name(text))
        return utc_text(_SPACED_UTC.sub("Z", _SPACED_OFFSET.sub("", text)))
    except AmbiguousTimeError:
        raise
    except (ValueError, OverflowError, OSError) as error:
        wanted = "ISO 8601 such as 2026-05-01T08:00" if time_format is None else time_format
        advice = "; --time-format says how times are written" if time_format is None else ""
        raise DataError(f"expected a time as {wanted}, got {text!r:.60}{advice}") from error


def _own_order(match: re.Match[str]) -> DateOrder | None:
    """The order that one date shows by itself."""
    first, second = int(match[1]), int(match[3])
    if (first > 12) == (second > 12):
        return None
    return "day" if first > 12 else "month"


def _with_year_last(match: re.Match[str], order: DateOrder | None) -> datetime:
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    is_one_date = match[2] == "." or first == second or min(first, second) > 12
    own = _own_order(match) or order or ("day" if is_one_date else None)
    if own is None:
        point = match[2]
        raise AmbiguousTimeError(
            f"{match[0]!r} may be {year}-{second:02d}-{first:02d} or "
            f"{year}-{first:02d}-{second:02d}, and its column does not show which. Say how "
            f"dates are written: --time-format '%d{point}%m{point}%Y{_format_of(match['time'])}' "
            f"for the first, '%m{point}%d{point}%Y{_format_of(match['time'])}' for the second"
        )
    day, month = (first, second) if own == "day" else (second, first)
    moment = datetime(year, month, day)
    written = match["time"]
    if written is None:
        return moment
    clock = datetime.strptime(written.upper(), _format_of(written))
    return moment.replace(hour=clock.hour, minute=clock.minute, second=clock.second)


def _format_of(time: str | None) -> str:
    """The format of the time of day in :data:`_YEAR_LAST`."""
    if time is None:
        return ""
    seconds = ":%S" if time.count(":") == 2 else ""
    if time[-1] not in "mM":
        hours = f"%H:%M{seconds}"
    else:
        hours = f"%I:%M{seconds}{' ' if time[-3] == ' ' else ''}%p"
    return f"{', ' if time[0] == ',' else ' '}{hours}"


def _with_month_name(text: str) -> datetime:
    for known in _MONTH_NAMES:
        try:
            return datetime.strptime(text, known)
        except ValueError:
            continue
    raise ValueError


def _plain(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    text = value.isoformat() if isinstance(value, datetime) else str(value).strip()
    return text[:_TOO_LONG]
