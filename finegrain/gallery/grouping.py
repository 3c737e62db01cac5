"""One hit for each person, product, track or near-duplicate frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finegrain.errors import QueryError
from finegrain.gallery.backend import Backend, Search
from finegrain.gallery.entries import checked_cosine
from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.gallery.filters.syntax import unknown_column
from finegrain.index.exact import Hit, Vectors

_GROUPED = ("pid", "track", "camera", "time", "image")
_GROWTH = 4
_INITIAL_ROWS = 64  # k may be a million; do not allocate so many rows at once


class Thinning:
    """Keeps only the best hit of each group and of each set of near-duplicate frames.

    A hit is dropped if a better hit of the same group is kept, or if its cosine with a kept hit
    is above ``distinct``. A picture whose group is unknown is a group of its own.

    Args:
        store: Source of groups and vectors.
        group_by: Column whose values are the groups.
        distinct: Cosine above which a hit is a near-duplicate of a better one.

    Raises:
        QueryError: There is no such column, or ``distinct`` is not a number from 0 to 1.
    """

    def __init__(
        self, store: Backend, *, group_by: str | None = None, distinct: float | None = None
    ) -> None:
        self._store = store
        self._group_by = None if group_by is None else _checked_column(group_by, store)
        self._distinct = checked_cosine(distinct)

    def __call__(self, search: Search, queries: Vectors, k: int) -> list[list[Hit]]:
        """The ``k`` best kept hits of each query.

        A search goes deeper until it has ``k`` kept hits or has seen all pictures. The result
        therefore equals that of thinning out the complete ranking.
        """
        self._require_groups(queries)
        kept: list[list[Hit]] = [[]] * len(queries)
        pending = list(range(len(queries)))
        depth = _GROWTH * k
        while pending:
            deeper = []
            for number, hits in zip(pending, search(queries[pending], depth), strict=True):
                kept[number] = self._thinned(hits, k)
                if len(kept[number]) < k and len(hits) == depth:
                    deeper.append(number)
            pending = deeper
            depth *= _GROWTH
        return kept

    def _require_groups(self, queries: Vectors) -> None:
        """Raise an error for a column without values: every picture would be a group of its own."""
        column = self._group_by
        if column is None or not len(queries) or not self._store.count():
            return
        if not self._store.values(column, 1):
            held = [name for name in _GROUPED if self._store.values(name, 1)]
            others = [*held, *(n for n, kinds in self._store.columns().items() if kinds)]
            raise QueryError(
                f"group_by: no picture in the gallery has a {column!r:.60}, so there is nothing "
                f"to group by. Columns with values are: {', '.join(others[:20]) or 'none'}."
            )

    def _thinned(self, hits: Sequence[Hit], k: int) -> list[Hit]:
        groups = self._groups([hit.id for hit in hits])
        distinct_hits = (
            None if self._distinct is None else _Distinct(self._store, self._distinct, k)
        )
        kept: list[Hit] = []
        seen: set[object] = set()
        for hit in hits:
            group = groups.get(hit.id)
            if group in seen or not (distinct_hits is None or distinct_hits.add(hit.id)):
                continue
            if group is not None:
                seen.add(group)
            kept.append(hit)
            if len(kept) == k:
                break
        return kept

    def _groups(self, ids: Sequence[int]) -> dict[int, object]:
        if self._group_by is None:
            return {}
        values = self._store.groups(self._group_by, ids)
        if BUILT_IN.get(self._group_by) == "key":  # 10 and "10" are the same key
            return {id_: str(value) for id_, value in values.items()}
        return {id_: (isinstance(value, bool), value) for id_, value in values.items()}


class _Distinct:
    """A set of up to ``k`` pictures, no two with a cosine above a limit."""

    def __init__(self, store: Backend, limit: float, k: int) -> None:
        self._store = store
        self._limit = limit
        self._directions = np.empty((min(k, _INITIAL_ROWS), store.dim))
        self._count = 0

    def add(self, id_: int) -> bool:
        """Add a picture unless it was deleted or is too similar to one in the set.

        Returns:
            Whether the picture was added.
        """
        vector = self._store.vectors([id_]).get(id_)
        if vector is None:
            return False
        direction = vector.astype(np.float64)
        direction /= np.linalg.norm(direction)
        cosines = self._directions[: self._count] @ direction
        # Rounding may bring the cosine of equal vectors above 1.
        if np.any(np.minimum(cosines, 1) > self._limit):
            return False
        if self._count == len(self._directions):
            self._directions = np.concatenate([self._directions, np.empty_like(self._directions)])
        self._directions[self._count] = direction
        self._count += 1
        return True


def _checked_column(group_by: Any, store: Backend) -> str:
    if not isinstance(group_by, str):
        raise QueryError(f"group_by is the name of a column, or None; got {group_by!r:.40}.")
    if group_by not in BUILT_IN:
        columns = {**BUILT_IN, **store.columns()}
        if group_by not in columns:
            raise QueryError(f"group_by: {unknown_column(group_by, columns)}")
    return group_by
