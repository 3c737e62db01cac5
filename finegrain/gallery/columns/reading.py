"""Reads columns from a gallery's file, grouped by value.

SQLite returns the ids of all rows of a value as one text. Creating Python objects for each row
would take several times as long.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from finegrain.gallery.columns.table import Column, Draft, Group, Numbers, Table, Word
from finegrain.gallery.columns.times import milliseconds
from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.gallery.sqlite.rows import AMONG, Run
from finegrain.index.estimate import Ids
from finegrain.records import Kind

_CHUNK_GROUPS = 8192
_EXACT = 2.0**53
"""From here on, a whole number may have no float64, and its nearest one is not below this."""

_KINDS: dict[Kind, tuple[Kind, ...]] = {"key": ("text", "number")}
_IS_TEXT = "value >= '' AND value < x''"
_IS_NUMBER = "value < ''"
_OF_KIND: dict[Kind, str] = {
    "text": _IS_TEXT,
    "time": _IS_TEXT,
    "number": _IS_NUMBER,
    "boolean": _IS_NUMBER,
}
"""Conditions in SQL. SQLite orders numbers before texts and these before blobs, so that it finds
values of one type by an index. Damage may have changed the type of a value."""


def read(run: Run, table: Table, name: str) -> Column | None:
    """A column of all rows of a table; None if its values do not fit into arrays."""
    return _read(_Source(run, name), Draft(table.blocks, table.blank()))


def updated(run: Run, table: Table, name: str, ids: Ids) -> Column | None:
    """A column of a table after the values of some rows have changed; None as for :func:`read`.

    Args:
        run: The ``execute`` of a connection.
        table: A table with the column.
        name: Name of the column.
        ids: Ids of these rows, ascending.
    """
    column = table.columns[name]
    if column is None:
        return None
    draft = Draft(table.blocks, column)
    draft.clear(ids)
    return _read(_Source(run, name, ids), draft)


def ids_where(run: Run, condition: str, *parameters: object) -> Ids:
    """Ids of the rows that meet a condition on the table ``picture``, ascending."""
    rows = run(f"SELECT group_concat(id) FROM picture WHERE {condition}", parameters)
    return np.sort(_parsed(rows.fetchone()))


def _read(source: _Source, draft: Draft) -> Column | None:
    try:
        for kind in source.kinds:
            if kind == "text":
                _write_texts(source, draft)
            else:
                for group in source.groups(kind):
                    draft.write(group)
        return draft.column()
    except _NoArrayError:
        return None
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        return None  # a damaged text is not UTF-8


def _write_texts(source: _Source, draft: Draft) -> None:
    groups = source.groups("text")
    while draft.keeps_words and (group := next(groups, None)) is not None:
        draft.write(group)
    if not draft.keeps_words:
        draft.write(source.texts())


class _NoArrayError(Exception):
    """A value does not fit into an array."""


class _Source:
    """The rows that have a value in a column.

    Args:
        run: The ``execute`` of a connection.
        name: Name of the column.
        ids: Ids of some rows; None for all.
    """

    def __init__(self, run: Run, name: str, ids: Ids | None = None) -> None:
        self._run = run
        self._name = name
        self._list = None if ids is None else json.dumps(ids.tolist())
        built_in = BUILT_IN.get(name)
        self.kinds: Sequence[Kind] = ("text", "number", "boolean")
        if built_in is not None:
            self.kinds = _KINDS.get(built_in, (built_in,))

    def groups(self, kind: Kind) -> Iterator[Group]:
        """The rows with a value of one kind, by value."""
        cursor = self._select("value, group_concat(id)", kind, "GROUP BY value")
        while chunk := cursor.fetchmany(_CHUNK_GROUPS):
            values, texts = zip(*chunk, strict=True)
            counts = [text.count(",") + 1 for text in texts]
            yield Group(_typed(values, kind), counts, _parsed(texts))

    def texts(self) -> Group:
        """The rows with a text, as if all texts were equal."""
        ids = _parsed(self._select("group_concat(id)", "text").fetchone())
        return Group([""], [len(ids)], ids)

    def _select(self, what: str, kind: Kind, grouping: str = "") -> sqlite3.Cursor:
        parameters: tuple[str, ...] = ()
        if self._name in BUILT_IN:  # the name becomes part of the SQL text, so only these
            rows = f"SELECT id, {self._name} AS value FROM picture"
        else:
            # A plus sign keeps SQLite from reading all rows by the index of values.
            plus = "" if self._list is None else "+"
            rows = (
                "SELECT picture AS id, value FROM attribute "
                f"WHERE {plus}name = ? AND {plus}kind = ?"
            )
            parameters = (self._name, kind)
        among = ""
        if self._list is not None:
            among = f"AND id {AMONG}"
            parameters = (*parameters, self._list)
        return self._run(
            f"SELECT {what} FROM ({rows}) WHERE {_OF_KIND[kind]} {among} {grouping}", parameters
        )


def _typed(values: Sequence[Any], kind: Kind) -> Sequence[Word] | Numbers:
    """Values as a column stores them.

    Raises:
        _NoArrayError: A number has no float64, or a time is not in the form of stored times.
    """
    if kind == "boolean":
        return [bool(value) for value in values]
    if kind == "text":
        return values
    if kind == "time":
        try:
            return milliseconds(values)
        except ValueError:
            raise _NoArrayError from None
    numbers = np.array(values, np.float64)
    large = np.flatnonzero(np.abs(numbers) >= _EXACT).tolist()
    if any(values[place] != float(numbers[place]) for place in large):
        raise _NoArrayError
    return numbers


def _parsed(texts: Iterable[str | None]) -> Ids:
    """The ids in texts such as ``1,2,5``; None stands for no ids."""
    return np.fromstring(",".join(filter(None, texts)), np.int64, sep=",")
