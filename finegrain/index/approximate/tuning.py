"""Measuring what an approximate search finds of the exact answer, and choosing its effort."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from tabulate import tabulate

from finegrain.errors import GalleryError, QueryError
from finegrain.index.approximate.index import ApproximateIndex
from finegrain.index.approximate.kinds import Approximate
from finegrain.index.approximate.truth import everything, exact_best
from finegrain.index.estimate import Query, Vectors
from finegrain.index.exact import Hit, VectorIndex

EXACT_ROWS = 1_000_000
"""Up to about here exact search takes tens of milliseconds on two cores."""

FEW_QUERIES = 100
"""Of fewer queries a recall of 0.99 and one of 0.98 cannot be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One effort.

    Attributes:
        kind: The kind of index and its effort.
        recall: Of the exact ``k`` best, how many are found; mean over the queries.
        worst: The recall of the query that loses most.
        milliseconds: Median time of one query, asked alone.
    """

    kind: Approximate
    recall: float
    worst: float
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was measured, and the effort that the gallery searches with from now on.

    ``print`` shows it as a table. To search so from the start, open the gallery with
    ``index=tuned.chosen.kind``.

    Attributes:
        measured: By rising effort, up to the first that reaches ``min_recall``.
        chosen: The first that reaches it, else the one with the highest recall.
        k: Recall is that of the ``k`` best.
        min_recall: What was asked for.
        queries: How many were asked.
        pictures: How many were searched.
    """

    measured: tuple[Measured, ...]
    chosen: Measured
    k: int
    min_recall: float
    queries: int
    pictures: int

    @property
    def reached(self) -> bool:
        """Whether ``min_recall`` was reached."""
        return self.chosen.recall >= self.min_recall

    def __str__(self) -> str:
        rows = [(one.kind, one.recall, one.worst, one.milliseconds) for one in self.measured]
        headers = ("effort", f"recall@{self.k}", "worst query", "ms per query")
        table = tabulate(rows, headers, floatfmt=("", ".4f", ".4f", ".2f"))
        return "\n".join([table, *self._remarks()])

    def _remarks(self) -> list[str]:
        verdict = f"{self.chosen.kind} is in use now."
        if not self.reached:
            verdict = (
                f"No effort reaches {self.min_recall}; {verdict} Exact search loses nothing: "
                "open the gallery without index=."
            )
        remarks = [f"{self.queries} queries, {self.pictures} pictures. {verdict}"]
        if self.pictures < EXACT_ROWS:
            remarks.append("Exact search is about as quick for so few pictures, and loses nothing.")
        if self.queries < FEW_QUERIES:
            remarks.append(f"So few queries say little; give {FEW_QUERIES} or more.")
        return remarks


def tune(
    index: VectorIndex | ApproximateIndex, queries: Vectors, *, k: int, min_recall: float
) -> Tuned:
    """Measure recall at rising effort, and search with the first that is enough.

    The exact answers come from reading all vectors once, a chunk at a time.

    Args:
        index: Searches with the chosen effort afterwards.
        queries: As users ask them, so of texts where users write texts, ``[Q, D]``.
        k: Of the answers, how many count.
        min_recall: Mean share of the exact answers that is to be found, above 0 to 1.

    Raises:
        GalleryError: The gallery searches exactly.
        QueryError: There are no queries, ``min_recall`` is out of its range, or the gallery
            is empty.
    """
    if not isinstance(index, ApproximateIndex):
        raise GalleryError(
            "This gallery searches exactly, so there is no effort to tune. For an approximate "
            "index open it with index=RaBitQ(), Ivf() or Hnsw()."
        )
    wanted = _checked_recall(min_recall)
    if not len(queries) or not len(index):
        raise QueryError(
            "Tuning needs queries and pictures; got "
            f"{len(queries)} queries for a gallery of {len(index)} pictures."
        )
    truth = exact_best(everything(index.truth), [Query(q.astype(np.float64)) for q in queries], k)
    # Without codes every effort is exact; the lowest would be wrong once there are some.
    ladder = [index.kind] if index.is_exact else index.kind.ladder()
    measured = []
    for kind in ladder:
        measured.append(_measure(index.at(kind), queries, truth, k))
        if measured[-1].recall >= wanted:
            break
    chosen = max(measured, key=lambda one: one.recall)
    index.kind = chosen.kind
    return Tuned(
        measured=tuple(measured),
        chosen=chosen,
        k=k,
        min_recall=wanted,
        queries=len(queries),
        pictures=len(index),
    )


def _measure(
    index: ApproximateIndex, queries: Vectors, truth: Sequence[Sequence[Hit]], k: int
) -> Measured:
    recalls, seconds = [], []
    for query, exact in zip(queries, truth, strict=True):
        start = time.perf_counter()
        (hits,) = index.search(query[None], k)
        seconds.append(time.perf_counter() - start)
        found = {hit.id for hit in hits} & {hit.id for hit in exact}
        recalls.append(len(found) / len(exact))
    return Measured(
        kind=index.kind,
        recall=fmean(recalls),
        worst=min(recalls),
        milliseconds=1e3 * median(seconds),
    )


def _checked_recall(min_recall: Any) -> float:
    number = isinstance(min_recall, int | float) and not isinstance(min_recall, bool)
    if not number or not 0 < min_recall <= 1:
        raise QueryError(
            f"min_recall is a number above 0, up to 1, such as 0.99; got {min_recall!r:.40}."
        )
    return float(min_recall)
