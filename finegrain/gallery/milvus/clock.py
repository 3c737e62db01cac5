"""Reads the clock for a gallery on Milvus; :mod:`finegrain.gallery.clock` states the rule.

The readings are in a document with the id 0, which is neither a picture nor a note that earlier
versions read.
"""

from __future__ import annotations

from finegrain import times
from finegrain.gallery.clock import Looks
from finegrain.gallery.milvus.connection import Connection
from finegrain.gallery.milvus.documents import note

_CLOCK_NOTE = 0


def start_clock(connection: Connection, collection: str, width: int) -> None:
    """Store the present time as trusted, in a new gallery."""
    _store(connection, collection, width, Looks(times.now()))


def look(
    connection: Connection, collection: str, width: int, *, trust: bool = False
) -> tuple[str, str | None]:
    """Read the clock and store what it shows.

    Returns:
        The time up to which expired pictures may be deleted, and the time that is not trusted yet
        or None, both in the form of stored times.
    """
    before = _stored(connection, collection)
    now = times.now()
    after = before.after(now, trust=trust)
    if after.is_worth_storing(before):
        _store(connection, collection, width, after)
    return after.deletable_until(now), after.doubted_text()


def copy_clock(connection: Connection, old: str, new: str, width: int) -> None:
    """Store the readings of one collection in another one."""
    _store(connection, new, width, _stored(connection, old))


def _stored(connection: Connection, collection: str) -> Looks:
    notes = list(connection.among(collection, [_CLOCK_NOTE], "id <= 0", ["metadata"]))
    about = notes[0]["metadata"] if notes else {}
    return Looks.of_texts(about.get("clock"), about.get("doubted"))


def _store(connection: Connection, collection: str, width: int, looks: Looks) -> None:
    clock, doubted = looks.texts()
    connection.write(collection, [note(_CLOCK_NOTE, width, {"clock": clock, "doubted": doubted})])
