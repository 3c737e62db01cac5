"""What a gallery needs of the place that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from finegrain.gallery.entries import Entry, OnDuplicate
from finegrain.gallery.filters.conditions import Value
from finegrain.gallery.row import Place, Row
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.index.approximate import Tuned
from finegrain.index.exact import Hit, Ids, Vectors
from finegrain.records import Scalar

Search = Callable[[Vectors, int], list[list[Hit]]]
"""Queries ``[Q, D]`` and a depth to the hits of each, best first, equal scores by ascending id."""


class Backend(Protocol):
    """Keeps the rows and vectors of a gallery and searches them.

    All arguments were checked. A picture whose time is over is in no answer.
    """

    @property
    def path(self) -> Path | str: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def dim(self) -> int: ...

    def searching(self, where: str | None) -> Search:
        """A search of what is there now and matches a filter."""
        ...

    def tune(self, queries: Vectors, k: int, min_recall: float) -> Tuned:
        """Set the effort of an approximate search by its recall."""
        ...

    def count(self) -> int: ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def ids_where(self, expression: str) -> Ids:
        """Ids of the rows that match a filter, ascending."""
        ...

    def columns(self) -> dict[str, set[str]]:
        """Kinds of value that each metadata column has held; none for nulls only."""
        ...

    def images(self) -> set[str]: ...

    def known(self, images: Iterable[str]) -> dict[str | None, list[int]]:
        """Ids by path of those of the pictures that are there."""
        ...

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Those of the rows that are there, by id."""
        ...

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        """The value of one column for those of the ids that are there and have one."""
        ...

    def values(self, column: str, limit: int) -> list[Value]:
        """Some of the different values that a column has, at most so many."""
        ...

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]: ...

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` of those of the ids that are there."""
        ...

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks."""
        ...

    def places(self) -> Iterable[Place]:
        """Where each picture with a path came from, by ascending id."""
        ...

    def has_numbered_pids(self) -> bool:
        """Whether there are pids that an older version may have numbered itself."""
        ...

    def rewrite(self, entries: Mapping[int, Entry]) -> None:
        """Put entries in the place of all that rows say, but for their vectors and thumbnails."""
        ...

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        """Write all rows or none; ids in the order given, of a skipped one the id it had."""
        ...

    def last_id(self) -> int:
        """The highest id that was given so far."""
        ...

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], since: int, own: Set[int]
    ) -> list[int]:
        """Write rows, but for paths that others have added after an id; the ids of all."""
        ...

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        """Write all batches or none, one at a time in memory; returns the ids."""
        ...

    def delete(self, ids: Iterable[int]) -> int:
        """Remove rows; returns how many were there."""
        ...

    def expire(self, *, trust_clock: bool = False) -> int:
        """Remove the rows whose time is over; returns how many."""
        ...

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool,
        progress: bool,
    ) -> Reindexed: ...

    def close(self) -> None: ...
