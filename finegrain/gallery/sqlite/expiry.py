"""Reads the clock for a gallery's file; :mod:`finegrain.gallery.clock` states the rule."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from finegrain import times
from finegrain.gallery.clock import Looks


def look(connection: sqlite3.Connection, *, trust: bool = False) -> str:
    """Read the clock inside a write transaction.

    Returns:
        The time up to which expired pictures may be deleted, in the form of stored times.
    """
    before = _stored(connection.execute)
    now = times.now()
    after = before.after(now, trust=trust)
    if after.is_worth_storing(before):
        connection.execute("UPDATE gallery SET clock = ?, doubted = ?", after.texts())
    return after.deletable_until(now)


def is_due(connection: sqlite3.Connection) -> bool:
    """Whether the clock shows something worth storing."""
    before = _stored(connection.execute)
    return before.after(times.now()).is_worth_storing(before)


def doubted(run: Callable[..., sqlite3.Cursor]) -> str | None:
    """The stored time that is not trusted yet, or None.

    Args:
        run: The ``execute`` of a connection.
    """
    return _stored(run).doubted_text()


def _stored(run: Callable[..., sqlite3.Cursor]) -> Looks:
    return Looks.of_texts(*run("SELECT clock, doubted FROM gallery").fetchone())
