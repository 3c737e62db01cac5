"""Times as a gallery stores them: UTC texts of fixed width, whose text order is the time order."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current time in UTC; every gallery uses this clock."""
    return datetime.now(UTC)


def utc_text(moment: datetime | str) -> str:
    """Format a time as UTC text with milliseconds, such as ``2026-05-01T08:00:00.000Z``.

    Args:
        moment: A datetime, or a text in ISO 8601 such as ``2026-05-01`` or
            ``2026-05-01T08:00+02:00``. A time without an offset is UTC, so that the meaning of a
            file or filter does not depend on the machine that reads it.

    Raises:
        ValueError: The text is not a time, or the time in UTC is outside of the years 1 to 9999.

    Example:
        >>> utc_text("2026-05-01T08:00+02:00")
        '2026-05-01T06:00:00.000Z'
    """
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    try:
        text = aware.astimezone(UTC).isoformat(timespec="milliseconds")
    except OverflowError as error:
        raise ValueError("the time in UTC is outside of the years 1 to 9999") from error
    return text.removesuffix("+00:00") + "Z"
