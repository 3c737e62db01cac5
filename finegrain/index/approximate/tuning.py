"""Measuring the recall of an approximate index, and choosing its effort."""

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
from finegrain.index.backend import SearchIndex
from finegrain.index.estimate import Query, Vectors
from finegrain.index.exact import Hit

EXACT_ROWS = 1_000_000
"""Up to about this size, exact search takes tens of milliseconds on two cores."""

FEW_QUERIES = 100
"""With fewer queries, recalls of 0.99 and 0.98 cannot be distinguished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measurement of one effort.

    Attributes:
        kind: Kind of index and its effort.
        recall: Share of the exact ``k`` best that the search returns, mean over the queries.
        worst: Lowest recall of a query.
        milliseconds: Median time of one query, searched alone.
    """

    kind: Approximate
    recall: float
    worst: float
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Result of tuning: the measurements, and the effort that is now in use.

    ``print`` shows a table. To use the same effort later, open the gallery with
    ``index=tuned.chosen.kind``.

    Attributes:
        measured: Measurements by increasing effort, up to the first that reaches ``min_recall``.
        chosen: The first that reaches it, or the one with the highest recall.
        k: Number of hits over which recall is measured.
        min_recall: The required recall.
        queries: Number of queries.
        pictures: Number of pictures searched.
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
        rows = [(m.kind, m.recall, m.worst, m.milliseconds) for m in self.measured]
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


def tune(index: SearchIndex, queries: Vectors, *, k: int, min_recall: float) -> Tuned:
    """Measure recall with increasing effort, and use the first effort that is sufficient.

    The exact hits come from reading all vectors once, in chunks.

    Args:
        index: The index; it uses the chosen effort afterwards.
        queries: Representative queries, ``[Q, D]``: embeddings of texts if users search by text.
        k: Number of hits over which recall is measured.
        min_recall: Required mean share of the exact hits, above 0 to 1.

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
    required = _checked_recall(min_recall)
    if not len(queries) or not len(index):
        raise QueryError(
            "Tuning needs queries and pictures; got "
            f"{len(queries)} queries for a gallery of {len(index)} pictures."
        )
    exact_queries = [Query(query.astype(np.float64)) for query in queries]
    truth = exact_best(everything(index.truth), exact_queries, k, index.biases)
    # Without a trained index every effort is exact, so there is nothing to choose.
    ladder = [index.kind] if index.is_exact else index.kind.ladder()
    measured = []
    for kind in ladder:
        measured.append(_measure(index.at(kind), queries, truth, k))
        if measured[-1].recall >= required:
            break
    chosen = max(measured, key=lambda measurement: measurement.recall)
    index.kind = chosen.kind
    return Tuned(
        measured=tuple(measured),
        chosen=chosen,
        k=k,
        min_recall=required,
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
        correct = {hit.id for hit in hits} & {hit.id for hit in exact}
        recalls.append(len(correct) / len(exact))
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
