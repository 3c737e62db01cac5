"""Exact inner-product search over the vectors of a gallery."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found, and its inner product with the query."""

    id: int
    score: float


class VectorIndex:
    """A flat FAISS index whose positions follow ascending ids.

    Ids must be added in ascending order; the order of positions then breaks ties.
    """

    def __init__(self, dim: int) -> None:
        self._flat = faiss.IndexFlatIP(dim)
        self._ids: Ids = np.empty(0, np.int64)

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ids greater than all before them."""
        self._flat.add(vectors)
        self._ids = np.concatenate([self._ids, ids])

    def remove(self, ids: Ids) -> None:
        """Take out those of the ids that are in the index."""
        positions = self._positions(ids)
        if len(positions):
            self._flat.remove_ids(faiss.IDSelectorBatch(positions))
            self._ids = np.delete(self._ids, positions)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """The ``k`` best of each query, best first, equal scores by ascending id.

        Args:
            queries: ``[Q, D]``, contiguous.
            k: How many; all there are when it is larger.
            allowed: Search only these ids. Only their vectors are read, so the cost falls
                with their number.
        """
        positions = None if allowed is None else self._positions(allowed)
        available = len(self) if positions is None else len(positions)
        if available == 0:
            return [[] for _ in queries]
        parameters = None
        if positions is not None:
            selector = faiss.IDSelectorArray(positions)
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        depth = min(k, available)
        while True:
            # One more than asked for shows whether the last place is shared; FAISS picks any
            # of equal scores, so a shared place is settled only by seeing all that share it.
            wide = min(depth + 1, available)
            scores, found = self._flat.search(queries, wide, params=parameters)
            last_place = scores[:, min(k, available) - 1]
            if wide == available or not np.any(last_place == scores[:, -1]):
                return [self._hits(*row, k) for row in zip(scores, found, strict=True)]
            depth *= 2

    def _hits(self, scores: Vectors, positions: Ids, k: int) -> list[Hit]:
        order = np.lexsort((positions, -scores))[:k]
        ids = self._ids[positions[order]]
        return list(map(Hit, ids.tolist(), scores[order].tolist()))

    def _positions(self, ids: Ids) -> Ids:
        """Positions of those of the ids that are here, ascending."""
        if not len(self):
            return np.empty(0, np.int64)
        places = np.searchsorted(self._ids, ids)
        here = self._ids.take(places, mode="clip") == ids
        return np.sort(places[here])
