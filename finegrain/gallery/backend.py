"""The interface of a gallery's storage, which is an SQLite file or a Milvus collection."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence, Set
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from finegrain.gallery.duplicates import Inserted, OnDuplicate
from finegrain.gallery.filters.conditions import Condition, Value
from finegrain.gallery.row import Entry, Place, Row
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.index.approximate import Tuned
from finegrain.index.exact import Hit, Ids, Vectors
from finegrain.records import Scalar

Memory = Literal["codes", "vectors"]
"""What an exact search of a file keeps in memory."""

Search = Callable[[Vectors, int], list[list[Hit]]]
"""A search function.

It takes queries ``[Q, D]`` and the number of hits wanted. It returns the hits of each query, best
first; equal scores are ordered by ascending id.
"""


class Backend(Protocol):
    """Stores the rows and vectors of a gallery and searches them.

    The caller has checked all arguments. No method returns a picture that has expired.
    """

    @property
    def path(self) -> Path | str: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def vectors_per_row(self) -> int: ...

    def damaged_now(self) -> frozenset[int]:
        """Ids of stored pictures whose damage was detected; they are left out of all answers."""
        ...

    def damaged_among(self, ids: Iterable[int]) -> set[int]:
        """Ids of the damaged pictures among some; reads their vectors and thumbnails."""
        ...

    def searching(self, where: str | None) -> Search:
        """Return a search over the present pictures that match a filter."""
        ...

    def searching_caption(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], where: str | None
    ) -> tuple[Vectors, Search] | None:
        """Embed a caption; return its embedding ``[1, D]`` and a search, or None if not able to."""
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
        """Kinds of value that each metadata column has held; empty where it held only nulls."""
        ...

    def images(self) -> set[str]: ...

    def known(
        self, images: Iterable[str], *, with_damaged: bool = False
    ) -> dict[str | None, list[int]]:
        """Ids of the stored pictures by path; a path without pictures is left out."""
        ...

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Rows by id; an id that is not stored is left out."""
        ...

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        """Value of one column by id; ids that are not stored or have no value are left out."""
        ...

    def values(self, column: str, limit: int) -> list[Value]:
        """Up to ``limit`` distinct values of a column."""
        ...

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]: ...

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; an id that is not stored is left out."""
        ...

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks."""
        ...

    def places(self) -> Iterable[Place]:
        """Origin of each picture that has a path, by ascending id."""
        ...

    def has_numbered_pids(self) -> bool:
        """Whether an older version may have replaced some pids with numbers of its own."""
        ...

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the columns of stored rows; ``added_at``, vectors and thumbnails stay."""
        ...

    def change(
        self, ids: Sequence[int], condition: Condition | None, changed: Callable[[Row], Row]
    ) -> int:
        """Change the columns of those rows that match a condition; return their number."""
        ...

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        """Write all rows or none; return ids in input order (a skipped row keeps its old id)."""
        ...

    def set_biases(self, ids: Sequence[int], values: Vectors) -> int:
        """Set the biases of pictures; return the number of those that are stored."""
        ...

    def biases(self, ids: Iterable[int]) -> dict[int, float]:
        """Biases by id; ids that were never given one are left out."""
        ...

    def insert_unless_overtaken(
        self, vectors: Vectors, entries: Sequence[Entry], known: Set[int]
    ) -> Inserted:
        """Write rows, except pictures that another process has added under an unknown id."""
        ...

    def insert_all(self, batches: Iterable[tuple[Vectors, Sequence[Entry]]]) -> list[int]:
        """Write all batches or none, with one batch in memory at a time; return the ids."""
        ...

    def delete(self, ids: Iterable[int], condition: Condition | None = None) -> int:
        """Remove rows that match a condition; return the number that were stored."""
        ...

    def delete_where(self, expression: str) -> int:
        """Remove the rows that match a filter; return their number."""
        ...

    def expire(self, *, trust_clock: bool = False) -> int:
        """Remove the expired rows; return their number."""
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
