"""Times as a gallery keeps them: UTC text of one width, whose order is the order of time."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The clock of every gallery."""
    return datetime.now(UTC)


def utc_text(moment: datetime | str) -> str:
    """A moment to the millisecond, as ``2026-05-01T08:00:00.000Z``.

    Args:
        moment: A datetime, or text of ISO 8601 such as ``2026-05-01`` or
            ``2026-05-01T08:00+02:00``. Without an offset it is UTC: what a file or a filter
            means must not depend on the machine that reads it.

    Raises:
        ValueError: The text is no such time, or its UTC leaves the years 1 to 9999.
    """
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    try:
        text = aware.astimezone(UTC).isoformat(timespec="milliseconds")
    except OverflowError as error:
        raise ValueError("its UTC leaves the years 1 to 9999") from error
    return text.removesuffix("+00:00") + "Z"
