"""Until when what has expired may be deleted.

Deleting by time cannot be undone, and a computer's clock may be wrong for a while. A gallery
therefore remembers the time that it last trusted. A look at the clock that is up to two days later
is trusted. One that is further ahead (a clock that jumped, or a gallery that nobody opened for
long) is only noted; it is trusted when a later look, an hour of that clock or more after the first,
still says so. Meanwhile what has expired by that clock is in no answer, and stays in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from finegrain import times

LONGEST_STEP = timedelta(days=2)
"""How far the clock may have moved since the last look to be trusted at once."""

LOOKS_APART = timedelta(hours=1)
"""How long after a first look that was doubted a second one is trusted."""

_NOTED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Looks:
    """What a gallery remembers of its looks at the clock.

    Attributes:
        clock: The latest time that was trusted, or None when there was none yet.
        doubted: A later time that was seen once, or None.
    """

    clock: datetime | None
    doubted: datetime | None

    def after(self, now: datetime, *, trust: bool = False) -> Looks:
        """What is remembered after one more look.

        Args:
            now: What the clock says.
            trust: Somebody says that it is right.
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
    """Look at the clock inside a transaction that writes.

    Returns:
        The time up to which what has expired may be deleted, as a gallery keeps times.
    """
    clock, doubted = connection.execute("SELECT clock, doubted FROM gallery").fetchone()
    before = Looks(_moment(clock), _moment(doubted))
    after = before.after(times.now(), trust=trust)
    step = after.clock - before.clock if after.clock and before.clock else None
    if after.doubted != before.doubted or step is None or abs(step) >= _NOTED_STEP:
        connection.execute(
            "UPDATE gallery SET clock = ?, doubted = ?", (_text(after.clock), _text(after.doubted))
        )
    return "" if after.clock is None else times.utc_text(after.clock)


def doubted(run: Callable[..., sqlite3.Cursor]) -> str | None:
    """The time of a look that is not trusted yet, by ``execute`` of a connection."""
    (noted,) = run("SELECT doubted FROM gallery").fetchone()
    return None if noted is None else str(noted)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else times.utc_text(moment)
