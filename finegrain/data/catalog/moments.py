"""Parses times in tables."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from finegrain.errors import DataError
from finegrain.times import utc_text

_KNOWN = (
    (re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d"), "%Y:%m:%d %H:%M:%S"),  # EXIF
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2}"), "%Y/%m/%d"),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d\d"), "%Y/%m/%d %H:%M"),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d\d:\d\d"), "%Y/%m/%d %H:%M:%S"),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}"), "%d.%m.%Y"),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d\d"), "%d.%m.%Y %H:%M"),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d\d:\d\d"), "%d.%m.%Y %H:%M:%S"),
    (re.compile(r"\d{14}"), "%Y%m%d%H%M%S"),
)
"""Unambiguous formats. 05/01/2026 is ambiguous: it can be in May or in January."""

_INTERNET = re.compile(
    r"([A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(:\d\d)?( GMT| UTC?| [+-]\d{4})?"
)
"""Times of e-mail, HTTP and RSS."""

_SPACED_OFFSET = re.compile(r"(?<=\d) (?=[+-]\d\d:?\d\d$)")
_SPACED_UTC = re.compile(r"(?<=\d) (?:UTC|GMT|Z)$")

_EPOCH = re.compile(r"[1-9]\d{8,9}(\d{3})?(\.\d+)?")
_TOO_LONG = 60


def parse_time(value: Any, time_format: str | None = None) -> str:
    """Parse the time in a cell, and return it in the form that a gallery stores.

    Args:
        value: Text, or seconds or milliseconds since 1970 as a number or text.
        time_format: A format of :meth:`datetime.datetime.strptime`. Without one, ISO 8601, the
            year first with slashes, the day first with dots, the formats of EXIF and of e-mail,
            and Unix time are read. A time without an offset is UTC.

    Raises:
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
        if _INTERNET.fullmatch(text):
            return utc_text(parsedate_to_datetime(text))
        return utc_text(_SPACED_UTC.sub("Z", _SPACED_OFFSET.sub("", text)))
    except (ValueError, OverflowError, OSError) as error:
        wanted = "ISO 8601 such as 2026-05-01T08:00" if time_format is None else time_format
        advice = "; --time-format says how times are written" if time_format is None else ""
        raise DataError(f"expected a time as {wanted}, got {text!r:.60}{advice}") from error


def _plain(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    text = value.isoformat() if isinstance(value, datetime) else str(value).strip()
    return text[:_TOO_LONG]
