"""The hours during which a camera is watched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Self
from zoneinfo import ZoneInfo

from finegrain.errors import CameraError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(
    rf"(?:(?P<first>{'|'.join(DAYS)})(?:-(?P<last>{'|'.join(DAYS)}))? )?"
    r"(?P<from>[0-2][0-9]:[0-5][0-9])-(?P<to>[0-2][0-9]:[0-5][0-9])"
)
_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """Spans of the week, in minutes from Monday 00:00.

    Attributes:
        spans: Start and end of each span; an end may be after the end of the week.
        zone: Time zone of the spans.

    Example:
        >>> hours = Hours.of(["mon-fri 07:00-19:00", "sat 22:00-02:00"])
        >>> datetime(2026, 5, 3, 1, tzinfo=UTC) in hours   # a Sunday, one hour after midnight
        True
        >>> datetime(2026, 5, 3, 2, tzinfo=UTC) in hours
        False
    """

    spans: tuple[tuple[int, int], ...]
    zone: tzinfo = UTC

    @classmethod
    def of(cls, texts: list[str], zone: str = "UTC") -> Self:
        """Parse spans such as ``07:00-19:00`` and ``mon-fri 22:00-06:00``.

        Raises:
            CameraError: A span or the time zone is invalid.
        """
        try:
            place: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        except (OSError, ValueError, LookupError) as error:
            raise CameraError(
                f"expected a time zone such as Europe/Berlin, got {zone!r:.60}"
            ) from error
        return cls(tuple(span for text in texts for span in _spans(text)), place)

    def __contains__(self, time: datetime) -> bool:
        local = time.astimezone(self.zone)
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        return any(
            start <= at < end for start, end in self.spans for at in (minute, minute + 7 * _DAY)
        )


def _spans(text: str) -> list[tuple[int, int]]:
    parsed = _SPAN.fullmatch(str(text).strip().lower())
    begin, end = (_minutes(parsed["from"]), _minutes(parsed["to"])) if parsed else (_DAY + 1, 0)
    if parsed is None or begin >= _DAY or end > _DAY or begin == end:
        raise CameraError(
            f"expected hours such as '07:00-19:00' or 'mon-fri 22:00-06:00', got {text!r:.60}"
        )
    first, last = parsed["first"] or "mon", parsed["last"] or parsed["first"] or "sun"
    start, count = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    length = (end - begin) % _DAY or _DAY
    return [
        (day * _DAY + begin, day * _DAY + begin + length)
        for day in ((start + n) % 7 for n in range(count))
    ]


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
