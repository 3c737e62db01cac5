"""The file of standing queries and their alarms, which survives a crash.

An alarm is the id of a picture with its score. Its columns are read from the gallery when somebody
is told of it, so a picture that was deleted is in no later message.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from finegrain import times
from finegrain.errors import DataError, FinegrainError, QueryError
from finegrain.gallery.sqlite.files import OWNER_ONLY
from finegrain.search.alerts.alert import Rate
from finegrain.search.queries import check_query
from finegrain.serve import DEFAULT

MOST_QUERIES = 200
"""Standing queries of one file."""

MOST_ALARMS = 1000
"""Newest alarms of a query that are kept; older ones are dropped, also if nobody was told."""

SECRET_PREFIX = "whsec_"

_APPLICATION_ID = 0x66676C74
_VERSION = 1
_BUSY_SECONDS = 30.0
_MOST_NAME = 100
_TABLES = """
CREATE TABLE standing (
    name TEXT PRIMARY KEY, spec TEXT NOT NULL, secret TEXT, examined INTEGER,
    delivered INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE alarm (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, picture INTEGER NOT NULL,
    score REAL NOT NULL, least REAL NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE INDEX alarm_of ON alarm (name, number);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A standing query; create one with :meth:`checked`.

    Attributes:
        name: Name that its maker chose.
        query: The text.
        gallery: Name of the gallery.
        where: Filter on the columns; it includes that of the maker's key.
        avoid: Phrases for what must not be there.
        per: Column with one alarm for each value; None for an alarm for each picture.
        false_alarms_per_day, min_score, pictures_per_day: See
            :class:`~finegrain.search.alerts.alert.Rate`.
        webhook: Address that alarms are sent to.
        owner: Digest of the maker's key; None if an operator made it.
        made_at: When it was made, in UTC.
    """

    name: str
    query: str
    gallery: str
    where: str | None
    avoid: tuple[str, ...]
    per: str | None
    false_alarms_per_day: float | None
    min_score: float | None
    pictures_per_day: float | None
    webhook: str | None
    owner: str | None
    made_at: str

    @classmethod
    def checked(
        cls,
        name: str,
        query: str,
        *,
        gallery: str = DEFAULT,
        where: str | None = None,
        avoid: Sequence[str] = (),
        per: str | None = "track",
        false_alarms_per_day: float | None = 1.0,
        min_score: float | None = None,
        pictures_per_day: float | None = None,
        webhook: str | None = None,
        owner: str | None = None,
        made_at: str | None = None,
    ) -> Self:
        """A standing query whose name, texts and numbers are valid.

        Raises:
            QueryError: One of them is invalid.
        """
        if not (isinstance(name, str) and name.isprintable() and name.strip()):
            raise QueryError(f"expected a name of printable characters, got {name!r:.60}")
        if len(name) > _MOST_NAME:
            raise QueryError(f"expected a name of up to {_MOST_NAME} characters, got {len(name)}")
        for text in (query, *avoid):
            if not isinstance(text, str):
                raise QueryError(f"expected a text to search for, got {text!r:.40}")
            check_query(text)
        rate = Rate.checked(
            false_alarms_per_day=false_alarms_per_day,
            min_score=min_score,
            pictures_per_day=pictures_per_day,
        )
        return cls(
            name=name,
            query=query,
            gallery=gallery,
            where=where,
            avoid=tuple(avoid),
            per=per,
            **asdict(rate),
            webhook=webhook,
            owner=owner,
            made_at=made_at or times.utc_text(times.now()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A picture that reached the least score of a standing query.

    Attributes:
        number: Number in the file, which only grows.
        name: Name of the standing query.
        picture: Id of the picture.
        score: Its score.
        least: The least score at that time.
        at: When it was examined, in UTC.
    """

    number: int
    name: str
    picture: int
    score: float
    least: float
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Pictures that a standing query has examined.

    Attributes:
        name: Name of the standing query.
        last: Id of the last picture.
        least: The least score of an alarm.
        alarms: Ids and scores of the pictures that reached it.
    """

    name: str
    last: int
    least: float
    alarms: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has happened with a standing query.

    Attributes:
        examined: Id of the last picture that was examined; None before the first look.
        waiting: Number of alarms that its webhook has not accepted yet.
        dropped: Number of alarms that were dropped before its webhook accepted them.
        alarms: Number of alarms that the file holds.
    """

    examined: int | None
    waiting: int
    dropped: int
    alarms: int


class AlertBook:
    """Standing queries and their alarms in an SQLite file that only its owner may read.

    Any number of processes may use it, for example ``finegrain alerts`` beside a service.

    Args:
        path: The file; it is created if it does not exist.

    Raises:
        DataError: The file cannot be written, or is not one of alerts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._errors():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, OWNER_ONLY))
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self._connection.execute("PRAGMA secure_delete = ON")
                self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def add(self, standing: Standing, examined: int | None = None) -> str | None:
        """Store a standing query; return the secret of its webhook, which is not shown again.

        Args:
            standing: The query.
            examined: Id of the last picture that it does not examine; None for the last picture
                of the gallery when a service sees the query first.

        Raises:
            DataError: The name is taken, there are 200 already, or the file cannot be written.
        """
        secret = None
        if standing.webhook is not None:
            secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        with self._writing() as run:
            if run("SELECT 1 FROM standing WHERE name = ?", (standing.name,)).fetchone():
                raise DataError(
                    f"There is an alert named {standing.name!r} already. Remove it, or choose "
                    "another name."
                )
            if run("SELECT count(*) FROM standing").fetchone()[0] >= MOST_QUERIES:
                raise DataError(f"There are {MOST_QUERIES} alerts already. Remove one first.")
            spec = {name: value for name, value in asdict(standing).items() if name != "name"}
            run(
                "INSERT INTO standing (name, spec, secret, examined) VALUES (?, ?, ?, ?)",
                (standing.name, json.dumps(spec), secret, examined),
            )
        return secret

    def remove(self, name: str) -> None:
        """Remove a standing query with its alarms.

        Raises:
            DataError: There is none of this name, or the file cannot be written.
        """
        with self._writing() as run:
            if not run("DELETE FROM standing WHERE name = ?", (name,)).rowcount:
                known = ", ".join(row[0] for row in run("SELECT name FROM standing")) or "none"
                raise DataError(f"There is no alert named {name!r:.80}; there are: {known}.")
            run("DELETE FROM alarm WHERE name = ?", (name,))

    def all(self) -> list[Standing]:
        """All standing queries, by name.

        Raises:
            DataError: The file is damaged.
        """
        with self._reading() as run:
            rows = run("SELECT name, spec FROM standing ORDER BY name").fetchall()
        try:
            return [Standing.checked(name, **json.loads(spec)) for name, spec in rows]
        except (ValueError, TypeError, FinegrainError) as error:
            raise DataError(f"{self.path} holds an invalid alert: {error}") from error

    def secret(self, name: str) -> str | None:
        """The secret of a webhook; None without a webhook, or if the query was removed."""
        with self._reading() as run:
            row = run("SELECT secret FROM standing WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def progress(self) -> dict[str, Progress]:
        """What has happened with each standing query, by name."""
        with self._reading() as run:
            rows = run(
                "SELECT name, examined, dropped, "
                "(SELECT count(*) FROM alarm WHERE alarm.name = standing.name "
                " AND number > delivered AND secret IS NOT NULL), "
                "(SELECT count(*) FROM alarm WHERE alarm.name = standing.name) FROM standing"
            ).fetchall()
        return {
            name: Progress(examined=examined, dropped=dropped, waiting=waiting, alarms=alarms)
            for name, examined, dropped, waiting, alarms in rows
        }

    def examined(self, every: Sequence[Examined]) -> None:
        """Note which pictures were examined, and store their alarms; all is written, or nothing.

        What belongs to a query that was removed meanwhile is left out.
        """
        at = times.utc_text(times.now())
        with self._writing() as run:
            for one in every:
                if not run(
                    "UPDATE standing SET examined = ? WHERE name = ?", (one.last, one.name)
                ).rowcount:
                    continue
                for picture, score in one.alarms:
                    run(
                        "INSERT INTO alarm (name, picture, score, least, at) "
                        "VALUES (?, ?, ?, ?, ?)",
                        (one.name, picture, score, one.least, at),
                    )
                if one.alarms:
                    self._drop_oldest(run, one.name)

    @staticmethod
    def _drop_oldest(run: Any, name: str) -> None:
        row = run(
            "SELECT number FROM alarm WHERE name = ? ORDER BY number DESC LIMIT 1 OFFSET ?",
            (name, MOST_ALARMS),
        ).fetchone()
        if row is not None:
            run(
                "UPDATE standing SET dropped = dropped + (SELECT count(*) FROM alarm WHERE "
                "alarm.name = standing.name AND number <= ? AND number > delivered) "
                "WHERE name = ? AND secret IS NOT NULL",
                (row[0], name),
            )
            run("DELETE FROM alarm WHERE name = ? AND number <= ?", (name, row[0]))

    def alarms(self, names: Collection[str], after: int, limit: int = 100) -> list[Alarm]:
        """Alarms with numbers above ``after``, in their order."""
        with self._reading() as run:
            rows = run(
                "SELECT number, name, picture, score, least, at FROM alarm WHERE number > ? AND "
                "name IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT ?",
                (after, json.dumps(list(names)), limit),
            ).fetchall()
        columns = ("number", "name", "picture", "score", "least", "at")
        return [Alarm(**dict(zip(columns, row, strict=True))) for row in rows]

    def last_number(self) -> int:
        """Number of the newest alarm; 0 if there never was one."""
        with self._reading() as run:
            row = run("SELECT seq FROM sqlite_sequence WHERE name = 'alarm'").fetchone()
        return 0 if row is None else row[0]

    def undelivered(self, name: str, limit: int = 100) -> list[Alarm]:
        """The oldest alarms that the webhook of a query has not accepted."""
        with self._reading() as run:
            row = run("SELECT delivered FROM standing WHERE name = ?", (name,)).fetchone()
        return [] if row is None else self.alarms([name], row[0], limit)

    def deliver(self, alarm: Alarm) -> None:
        """Note that a webhook has accepted an alarm, and all before it."""
        with self._writing() as run:
            run(
                "UPDATE standing SET delivered = ? WHERE name = ? AND delivered < ?",
                (alarm.number, alarm.name, alarm.number),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        with self._writing() as run:
            (application,) = run("PRAGMA application_id").fetchone()
            (version,) = run("PRAGMA user_version").fetchone()
            is_new = not run("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if is_new:
                for statement in filter(str.strip, _TABLES.split(";")):
                    run(statement)
                run(f"PRAGMA application_id = {_APPLICATION_ID}")
                run(f"PRAGMA user_version = {_VERSION}")
            elif (application, version) != (_APPLICATION_ID, _VERSION):
                raise DataError(
                    f"{self.path} is not a file of alerts, or one of a newer version. Choose "
                    "another path."
                )

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._lock, self._errors():
            yield self._connection.execute

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """One transaction, which is on the disk after the block."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"the file of alerts {self.path} cannot be used: {error}") from error
