"""The time up to which expired pictures may be deleted.

Deletion cannot be undone, and a computer's clock may be wrong for a while. A gallery therefore
stores the last time that it trusted, whenever it is opened or written. It trusts a reading of the
clock up to two days later. A reading further ahead means that the clock jumped, or that nobody used
the gallery for long. The gallery only stores such a reading, and trusts the clock if a second
reading, at least an hour later by that clock, confirms it. Until then, pictures that have expired
by that clock are in no result, but stay stored. An earlier reading lowers the trusted time, so that
a clock that was ahead for a while does not make a later jump look small.

A gallery that is used once a week would be in doubt each time. A gallery therefore learns its usual
step: the time between two uses that were further apart than two days and both right. A step that is
not much longer is trusted at once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from finegrain import times
from finegrain.errors import GalleryWarning

LONGEST_STEP = timedelta(days=2)
"""Largest step of the clock since the last trusted reading that is trusted at once."""

LONGEST_USUAL_STEP = timedelta(days=31)
"""Largest step that a gallery learns; it covers a use once a month."""

LOOKS_APART = timedelta(hours=1)
"""How long after a doubted reading a second reading confirms it."""

_TOLERANCE = 1.25
_NOTED_STEP = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Looks:
    """Readings of the clock that a gallery stores.

    Attributes:
        clock: The last trusted time, or None if there is none yet.
        doubted: A later time that was read once and is not trusted yet, or None.
        usual_step: Time between two uses of the gallery, if that is longer than
            :data:`LONGEST_STEP` and there is no doubt; else None.
    """

    clock: datetime | None
    doubted: datetime | None = None
    usual_step: timedelta | None = None

    @classmethod
    def of_texts(cls, clock: str | None, other: str | None) -> Self:
        """The readings that :meth:`texts` returned."""
        trusted, second = _moment(clock), _moment(other)
        if trusted is not None and second is not None and second < trusted:
            return cls(trusted, None, trusted - second)
        return cls(trusted, second)

    def texts(self) -> tuple[str | None, str | None]:
        """Both readings in the form of stored times.

        The second one is the doubted time. Without a doubt it is the trusted time less the usual
        step, or None.
        """
        if self.clock is not None and self.usual_step is not None:
            return _text(self.clock), _text(self.clock - self.usual_step)
        return _text(self.clock), _text(self.doubted)

    def doubted_text(self) -> str | None:
        """The doubted time in the form of stored times, or None."""
        return _text(self.doubted)

    def after(self, now: datetime, *, trust: bool = False) -> Looks:
        """The readings to store after one more reading.

        Args:
            now: The time that the clock shows.
            trust: Whether the user confirms that the clock is right.
        """
        step = None if self.clock is None else now - self.clock
        if trust:
            return Looks(now, None, _learned(step) or self.usual_step)
        if self.clock is not None and now <= self.clock + self._longest_step():
            is_set_back = now < self.clock - LONGEST_STEP
            return Looks(now, None, _learned(step) or (None if is_set_back else self.usual_step))
        if self.doubted is None or now < self.doubted:
            return Looks(self.clock, now)
        if now < self.doubted + LOOKS_APART:
            return self
        # A jump of the clock is one long step. Two long steps in sequence are a habit.
        before = None if self.clock is None else min(self.doubted - self.clock, now - self.doubted)
        return Looks(now, None, _learned(before))

    def is_worth_storing(self, before: Looks) -> bool:
        """Whether these readings differ enough from those that are stored."""
        if self.clock is None or before.clock is None:
            return self != before
        if (self.doubted, self.usual_step) != (before.doubted, before.usual_step):
            return True
        return abs(self.clock - before.clock) >= _NOTED_STEP

    def deletable_until(self, now: datetime) -> str:
        """The time up to which expired pictures may be deleted, in the form of stored times."""
        # Both have to agree: a clock that was ahead may have been set back since.
        return "" if self.clock is None else times.utc_text(min(now, self.clock))

    def _longest_step(self) -> timedelta:
        if self.usual_step is None:
            return LONGEST_STEP
        return max(LONGEST_STEP, _TOLERANCE * self.usual_step)


def _learned(step: timedelta | None) -> timedelta | None:
    """A step as a usual step; None if it is short, or too long for a habit."""
    if step is None or not LONGEST_STEP < step <= _TOLERANCE * LONGEST_USUAL_STEP:
        return None
    return min(step, LONGEST_USUAL_STEP)


def warn_of_doubt(path: Path | str, moment: str, *, stacklevel: int) -> None:
    """Issue a :class:`GalleryWarning` that the clock is not trusted yet.

    Args:
        path: Path or address of the gallery.
        moment: The time that the clock showed.
        stacklevel: As of :func:`warnings.warn`, counted from the caller.
    """
    warnings.warn(
        f"{path}: the clock says {moment}, more than {LONGEST_STEP.days} days after "
        "the gallery was last used. Pictures that expired since are in no result. They "
        f"are deleted if the clock still says so in {LOOKS_APART.seconds // 60} minutes "
        "or later. If the clock is right: expire(trust_clock=True)",
        GalleryWarning,
        stacklevel=stacklevel + 1,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else times.utc_text(moment)
