"""Approximate inner-product search over the vectors of a gallery."""

from __future__ import annotations

import copy
from heapq import merge
from itertools import islice

import numpy as np

from finegrain.index.approximate.kinds import Approximate
from finegrain.index.approximate.trained import Trained
from finegrain.index.approximate.truth import Truth, everything, exact_best, fetched
from finegrain.index.estimate import Ids, Query, Vectors
from finegrain.index.exact import Hit, VectorIndex

TAIL_ROWS = 65_536
"""The newest rows, up to so many, are searched exactly."""

DEEPEST = 4096
"""More hits than this are looked for exactly: their candidates would be most of the gallery."""

_OUTGROWN = 4  # what was learned serves until there are so many times as many rows
_QUERIES_AT_ONCE = 16


class ApproximateIndex:
    """Short codes of most vectors in memory, and the vectors where the gallery keeps them.

    A search takes candidates from the codes (:mod:`~finegrain.index.approximate.kinds`), reads
    their vectors and ranks them by exact scores: a picture may be missed, none is ranked wrong.
    What is newer than the codes is in a tail, searched exactly; so no picture is ever invisible,
    and a small gallery is all tail. The tail joins the codes when it is full, and all is learned
    anew when the gallery has outgrown what it was learned from or lost half of its rows.
    Learning and coding take minutes for millions of rows, at the first search and then rarely.

    Nothing of it is written to a file: codes are as personal as the vectors, and a copy beside
    the gallery would outlive a deletion.

    Searches take no lock, as those of :class:`~finegrain.index.exact.VectorIndex`.

    Args:
        truth: The gallery's file.
        kind: Which kind of codes, and how much effort a search makes.
    """

    def __init__(self, truth: Truth, kind: Approximate) -> None:
        self.kind = kind
        self.truth = truth
        # Replaced together, so that a search sees each row in one of them.
        self._parts: tuple[Trained | None, VectorIndex] = (None, VectorIndex(truth.dim))

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        trained, tail = self._parts
        return tail.ids if trained is None else np.concatenate([trained.live_ids, tail.ids])

    @property
    def last_id(self) -> int:
        """No row up to this one is news."""
        trained, tail = self._parts
        return tail.last_id or (int(trained.ids[-1]) if trained else 0)

    @property
    def is_exact(self) -> bool:
        """All rows are in the tail."""
        return self._parts[0] is None

    def at(self, kind: Approximate) -> ApproximateIndex:
        """The same rows at another effort of the same kind, as they are now."""
        view = copy.copy(self)
        view.kind = kind
        return view

    def __len__(self) -> int:
        trained, tail = self._parts
        return len(tail) + (trained.num_alive if trained else 0)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them.

        When the tail is full, this takes in what the truth holds beyond them, too.
        """
        trained, tail = self._parts
        tail.add(ids, vectors)
        if len(tail) < TAIL_ROWS:
            return
        if trained is None or len(self) > _OUTGROWN * trained.rows_then:
            self._begin_anew()
        else:
            self._parts = (trained.with_rows(tail.chunks()), VectorIndex(self.truth.dim))

    def remove(self, ids: Ids) -> None:
        """Take out those of the ids that are in the index."""
        trained, tail = self._parts
        tail.remove(ids)
        if trained is None:
            return
        trained = trained.without(ids)
        self._parts = (trained, tail)
        if 2 * trained.num_alive < len(trained.ids):
            self._begin_anew()

    def _begin_anew(self) -> None:
        tail = VectorIndex(self.truth.dim)
        if len(self.truth.ids()) >= TAIL_ROWS:
            self._parts = (Trained.over(self.truth, self.kind), tail)
            return
        for ids, vectors in everything(self.truth):
            tail.add(ids, vectors)
        self._parts = (None, tail)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """Of each query ``k`` of the best, best first, equal scores by ascending id.

        There are fewer hits only where the gallery or the filter has fewer.

        Args:
            queries: ``[Q, D]``.
            k: How many.
            allowed: Search only these ids, ascending. Few of them are searched exactly.
        """
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            hits += self._search(queries[start : start + _QUERIES_AT_ONCE], k, allowed)
        return hits

    def _search(self, queries: Vectors, k: int, allowed: Ids | None) -> list[list[Hit]]:
        trained, tail = self._parts
        if trained is None:
            return tail.search(queries, k, allowed)
        some = [Query(vector.astype(np.float64)) for vector in queries]
        if k > DEEPEST or (allowed is not None and self._are_few(allowed)):
            return self._exact(some, k, allowed)
        searched = trained.num_alive + len(tail) if allowed is None else len(allowed)
        wanted = min(k, searched)
        candidates = trained.candidates(self.kind, queries, k, allowed)
        newest = tail.search(queries, k, allowed)
        answers = []
        for query, ids, new in zip(some, candidates, newest, strict=True):
            (old,) = exact_best(fetched(self.truth, ids), [query], k)
            best = list(islice(merge(old, new, key=_rank), k))
            # Lists or links that lead to too few rows say so; then all are read.
            answers.append(best if len(best) >= wanted else self._exact([query], k, allowed)[0])
        return answers

    def _are_few(self, allowed: Ids) -> bool:
        share = len(allowed) / max(1, len(self))
        return len(allowed) <= self.kind.gathered_rows(share)

    def _exact(self, queries: list[Query], k: int, allowed: Ids | None) -> list[list[Hit]]:
        chunks = everything(self.truth) if allowed is None else fetched(self.truth, allowed)
        return exact_best(chunks, queries, k)


def _rank(hit: Hit) -> tuple[float, int]:
    return -hit.score, hit.id
