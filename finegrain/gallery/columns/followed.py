"""Columns in memory that follow a gallery's file, and the choice between them and SQL."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.columns.masks import NeedsSqlError, Test, matching, split
from finegrain.gallery.columns.reading import ids_where, read, updated
from finegrain.gallery.columns.table import Table
from finegrain.gallery.filters.conditions import Condition, column_names, evaluate
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.sqlite.rows import EXPIRED, Run
from finegrain.gallery.sqlite.store import Store
from finegrain.index.estimate import Ids
from finegrain.runtime.forks import pause_at_fork

QUICK_STEPS = 20_000
"""Steps of SQLite's virtual machine that take about a millisecond. A filter that SQLite evaluates
in fewer, because an index leads to few rows, needs no columns in memory."""

_CHUNK_ROWS = 8192


class _Seen(NamedTuple):
    """The columns, and the counters of the file when it was read."""

    table: Table
    revision: int
    deletions: int


class _Selection(NamedTuple):
    """The part of a filter that columns evaluate, over the rows of one snapshot of the file.

    Attributes:
        test: Compiled terms of the filter.
        others: The other terms, or None.
        table: The rows.
        hidden: Ids of expired and damaged pictures, which match no filter.
        revision: The number of the last change of stored columns.
    """

    test: Test
    others: Condition | None
    table: Table
    hidden: Ids
    revision: int

    def ids(self) -> Ids:
        """Ids of the rows that match the compiled terms, ascending."""
        ids = matching(self.test, self.table)
        return np.setdiff1d(ids, self.hidden, assume_unique=True) if len(self.hidden) else ids


class FollowedColumns:
    """Evaluates filters over columns in memory.

    A column is read at the first filter that names it and that SQLite cannot evaluate quickly.
    Later filters read only changes. New pictures are those above the last id. The file numbers its
    changes of stored columns (``revision``), and a changed picture states the number of its last
    change. Deleted pictures stay until they are more than half of the rows.

    Columns do not keep very many different texts. If a filter compares these, the other terms of
    its ``and`` select rows first, and only the texts of these rows are read. A filter without such
    terms is evaluated by SQL. The meaning is the same.

    Args:
        store: The file.
        quick_steps: Steps of SQLite that cost less than reading a column.
    """

    def __init__(self, store: Store, quick_steps: int = QUICK_STEPS) -> None:
        self._store = store
        self._quick_steps = quick_steps
        self._lock = threading.Lock()
        self._seen = _Seen(Table(), 0, 0)
        pause_at_fork(self)

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()

    @property
    def num_bytes(self) -> int:
        """Bytes of the columns in memory."""
        return self._seen.table.num_bytes

    def ids_where(self, expression: str) -> Ids:
        """Ids of the pictures that match a filter, ascending.

        Deleted pictures may be among them, but no expired or damaged ones.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        condition = parse(expression, self._store.columns())
        if not column_names(condition) <= self._seen.table.columns.keys():
            ids = self._store.ids_matching_within(condition, self._quick_steps)
            if ids is not None:
                return ids
        try:
            selection = self._selection(condition)
        except NeedsSqlError:
            return self._store.ids_matching(condition)
        if selection.others is None:
            return selection.ids()
        try:
            with self._store.reading() as run:
                if _revision(run) == selection.revision:
                    return self._matching(selection.others, selection.ids())
        except GalleryError:
            pass  # a damaged text cannot be read, but SQL compares it
        return self._store.ids_matching(condition)

    def _selection(self, condition: Condition) -> _Selection:
        with self._lock, self._store.reading() as run:
            table, *counters = self._followed(run)
            for name in column_names(condition) - table.columns.keys():
                table = table.with_column(name, read(run, table, name))
            self._seen = _Seen(table, *counters)
            test, others = split(condition, table, self._store.ids_matching)
            damaged = np.array([*self._store.damaged], np.int64)
            hidden = np.concatenate([ids_where(run, EXPIRED), damaged])
            return _Selection(test, others, table, hidden, self._seen.revision)

    def _matching(self, condition: Condition, ids: Ids) -> Ids:
        """Those of some rows that match; their values are read from the file."""
        kept: list[int] = []
        for start in range(0, len(ids), _CHUNK_ROWS):
            chunk = ids[start : start + _CHUNK_ROWS].tolist()
            columns = {name: self._store.groups(name, chunk) for name in column_names(condition)}
            for id_ in chunk:
                row = {name: values.get(id_) for name, values in columns.items()}
                if evaluate(condition, row):
                    kept.append(id_)
        return np.array(kept, np.int64)

    def _followed(self, run: Run) -> _Seen:
        """The rows and columns as they are in the file now."""
        table, last_revision, last_deletions = self._seen
        revision, deletions = run("SELECT revision, deletions FROM gallery").fetchone()
        # SQLite uses the index only if the text of the condition implies that of the index.
        changed = ids_where(
            run, "revision > 0 AND revision > ? AND id <= ?", last_revision, table.last_id
        )
        new = ids_where(run, "id > ?", table.last_id)
        is_mostly_gone = deletions != last_deletions and _count(run) < len(table) // 2
        if is_mostly_gone or len(changed) + len(new) > len(table) // 2:
            table = Table().with_rows(ids_where(run, "TRUE"))
        elif len(touched := np.concatenate([changed, new])):
            table = table.with_rows(new)
            for name in table.columns:
                table = table.with_column(name, updated(run, table, name, touched))
        return _Seen(table, revision, deletions)


def _revision(run: Run) -> int:
    return int(run("SELECT revision FROM gallery").fetchone()[0])


def _count(run: Run) -> int:
    return int(run("SELECT count(*) FROM picture").fetchone()[0])
