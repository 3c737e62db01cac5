"""The time up to which expired pictures may be deleted.

Deletion cannot be undone, and a computer's clock may be wrong for a while. A gallery therefore
stores the last time that it trusted. It trusts a reading of the clock up to two days later. A
reading further ahead means that the clock jumped, or that nobody opened the gallery for long. The
gallery only stores such a reading, and trusts the clock if a second reading, at least an hour later
by that clock, confirms it. Until then, pictures that have expired by that clock are in no result,
but stay in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from finegrain import times

LONGEST_STEP = timedelta(days=2)
"""Largest step of the clock since the last trusted reading that is trusted at once."""

LOOKS_APART = timedelta(hours=1)
"""How long after a doubted reading a second reading confirms it."""

_NOTED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Looks:
    """Readings of the clock that a gallery stores.

    Attributes:
        clock: The latest trusted time, or None if there is none yet.
        doubted: A later time that was read once and is not trusted yet, or None.
    """

    clock: datetime | None
    doubted: datetime | None

    def after(self, now: datetime, *, trust: bool = False) -> Looks:
        """The readings to store after one more reading.

        Args:
            now: The time that the clock shows.
            trust: Whether the user confirms that the clock is right.
        """
        if trust:
            return Looks(now, None)
        if self.clock is not None and now <= self.clock + LONGEST_STEP:
            return Looks(max(self.clock, now), None)
        if self.doubted is None or now < self.doubted:
            return Looks(self.clock, now)
        if now >= self.doubted + LOOKS_APART:
            return Looks(now, None)
        return self


def look(connection: sqlite3.Connection, *, trust: bool = False) -> str:
    """Read the clock inside a write transaction.

    Returns:
        The time up to which expired pictures may be deleted, in the form of stored times.
    """
    clock, doubted = connection.execute("SELECT clock, doubted FROM gallery").fetchone()
    before = Looks(_moment(clock), _moment(doubted))
    now = times.now()
    after = before.after(now, trust=trust)
    step = after.clock - before.clock if after.clock and before.clock else None
    if after.doubted != before.doubted or step is None or abs(step) >= _NOTED_STEP:
        connection.execute(
            "UPDATE gallery SET clock = ?, doubted = ?", (_text(after.clock), _text(after.doubted))
        )
    # Both have to agree: a clock that was ahead may have been set back since.
    return "" if after.clock is None else times.utc_text(min(now, after.clock))


def doubted(run: Callable[..., sqlite3.Cursor]) -> str | None:
    """The stored time that is not trusted yet, or None.

    Args:
        run: The ``execute`` of a connection.
    """
    (noted,) = run("SELECT doubted FROM gallery").fetchone()
    return None if noted is None else str(noted)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else times.utc_text(moment)
