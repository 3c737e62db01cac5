"""Retrieval metrics of person re-identification, exact and in bounded memory.

Among equal scores the order of the gallery decides, as with a stable sort. The metrics are
computed over whole rankings, never over the first ``k`` only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.errors import EvaluationError

_SCORES_AT_ONCE = 1 << 24
"""Number of float32 scores in memory at a time: 64 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalMetrics:
    """How well queries retrieve their gallery items. Metrics are in percent.

    Attributes:
        rank1, rank5, rank10: Share of the queries with a match among the first 1, 5 or 10 results.
        mAP: Mean over queries of the average precision over the whole ranking.
        mINP: Mean inverse negative penalty: the number of matches divided by the rank of the last
            match, mean over queries (Ye et al. 2021, https://arxiv.org/abs/2001.04193).
        num_queries: Number of queries in the means.
        num_gallery: Size of the gallery.
        num_without_match: Number of queries without a match in the gallery, which are excluded.

    Example:
        >>> import numpy as np
        >>> print(RetrievalMetrics.from_ranks([np.array([1, 4]), np.array([2])], num_gallery=5))
         rank1   rank5  rank10     mAP    mINP
         50.00  100.00  100.00   62.50   50.00  (2 queries, 5 gallery)
    """

    rank1: float
    rank5: float
    rank10: float
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    num_queries: int
    num_gallery: int
    num_without_match: int = 0

    @classmethod
    def from_ranks(
        cls, ranks: Iterable[npt.NDArray[np.int64]], *, num_gallery: int
    ) -> RetrievalMetrics:
        """Compute the metrics from the ranks of each query's matches.

        Args:
            ranks: For each query the ranks ``[P]`` of its ``P`` matches, from 1, ascending; empty
                for a query without a match.
            num_gallery: Size of the gallery.

        Raises:
            EvaluationError: No query has a match.
        """
        all_ranks = list(ranks)
        matched = [row for row in all_ranks if len(row)]
        if not matched:
            raise EvaluationError(
                f"expected a query with a match in the gallery, got {len(all_ranks)} queries "
                f"without one in {num_gallery} gallery items. Check that both use the same pids."
            )
        first = np.array([row[0] for row in matched])
        last = np.array([row[-1] for row in matched])
        count = np.array([len(row) for row in matched])
        precision = [np.mean(np.arange(1, len(row) + 1) / row) for row in matched]
        return cls(
            rank1=100 * float(np.mean(first <= 1)),
            rank5=100 * float(np.mean(first <= 5)),
            rank10=100 * float(np.mean(first <= 10)),
            mAP=100 * float(np.mean(precision)),
            mINP=100 * float(np.mean(count / last)),
            num_queries=len(matched),
            num_gallery=num_gallery,
            num_without_match=len(all_ranks) - len(matched),
        )

    def to_dict(self) -> dict[str, float | int]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        names = ("rank1", "rank5", "rank10", "mAP", "mINP")
        head = "  ".join(f"{name:>6}" for name in names)
        row = "  ".join(f"{getattr(self, name):6.2f}" for name in names)
        left_out = f", {self.num_without_match} without match" if self.num_without_match else ""
        return f"{head}\n{row}  ({self.num_queries} queries, {self.num_gallery} gallery{left_out})"


def retrieval_metrics(
    queries: npt.ArrayLike,
    gallery: npt.ArrayLike,
    query_pids: npt.ArrayLike,
    gallery_pids: npt.ArrayLike,
    *,
    query_cameras: npt.ArrayLike | None = None,
    gallery_cameras: npt.ArrayLike | None = None,
    chunk: int | None = None,
) -> RetrievalMetrics:
    """Rank the gallery by dot product with each query, and measure the rankings.

    Args:
        queries: Embeddings ``[Q, D]``, L2-normalised where cosine is meant.
        gallery: Embeddings ``[G, D]``.
        query_pids: Identities ``[Q]``.
        gallery_pids: Identities ``[G]``; an item with the identity of the query is a match.
        query_cameras: Cameras ``[Q]``, integers or names; requires ``gallery_cameras``. A match
            from the camera of the query then leaves the ranking (the "junk" images of Zheng et
            al., Scalable Person Re-identification: A Benchmark, ICCV 2015).
        gallery_cameras: Cameras ``[G]``.
        chunk: Number of queries scored at a time. By default, as many as fit in 64 MB.

    Raises:
        EvaluationError: The shapes do not fit each other, an embedding is not finite, or no query
            has a match.

    Example:
        >>> gallery = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]
        >>> metrics = retrieval_metrics([[1.0, 0.0]], gallery, [7], [7, 9, 7])
        >>> metrics.rank1, round(metrics.mAP, 2), round(metrics.mINP, 2)
        (100.0, 83.33, 66.67)
    """
    query_rows = _embeddings("queries", queries)
    gallery_rows = _embeddings("gallery", gallery)
    if query_rows.shape[1] != gallery_rows.shape[1]:
        raise EvaluationError(
            f"expected queries and gallery of the same width, got {query_rows.shape[1]} and "
            f"{gallery_rows.shape[1]}. Embed both with the same model."
        )
    query_labels = _labels("query_pids", query_pids, len(query_rows))
    gallery_labels = _labels("gallery_pids", gallery_pids, len(gallery_rows))
    cameras = None
    if (query_cameras is None) != (gallery_cameras is None):
        raise EvaluationError(
            "expected cameras for both queries and gallery, got only one of the two. Pass both."
        )
    if query_cameras is not None and gallery_cameras is not None:
        cameras = (
            _labels("query_cameras", query_cameras, len(query_rows)),
            _labels("gallery_cameras", gallery_cameras, len(gallery_rows)),
        )
    if chunk is not None and chunk < 1:
        raise EvaluationError(f"expected chunk of 1 or more, got {chunk}.")

    def ranks() -> Iterator[npt.NDArray[np.int64]]:
        for i, scores in enumerate(_score_rows(query_rows, gallery_rows, chunk)):
            is_match = gallery_labels == query_labels[i]
            if cameras is not None:
                is_junk = is_match & (cameras[1] == cameras[0][i])
                scores[is_junk] = -np.inf  # ranks behind every finite score
                is_match &= ~is_junk
            yield ranks_of(np.flatnonzero(is_match), scores)

    return RetrievalMetrics.from_ranks(ranks(), num_gallery=len(gallery_rows))


def ranks_of(
    matches: npt.NDArray[np.intp], scores: npt.NDArray[np.floating]
) -> npt.NDArray[np.int64]:
    """Return the ranks of gallery items in the ranking of one query.

    Args:
        matches: Positions ``[P]`` of the items in the gallery.
        scores: Scores ``[G]`` of the gallery without NaN; higher is better.

    Returns:
        Ranks ``[P]`` from 1, ascending.

    Example:
        >>> ranks_of(np.array([0, 2]), np.array([0.2, 0.9, 0.5]))
        array([2, 3])
    """
    # Sorting values is several times faster than sorting positions. Positions matter only where
    # scores tie, which is rare and cheap to count.
    ascending = np.sort(scores)
    match_scores = scores[matches]
    not_above = np.searchsorted(ascending, match_scores, side="right")
    ranks = 1 + len(scores) - not_above
    tied = np.flatnonzero(not_above - np.searchsorted(ascending, match_scores, side="left") > 1)
    for i in tied:
        ranks[i] += np.count_nonzero(scores[: matches[i]] == match_scores[i])
    return np.sort(ranks)


def precision_at_k(relevant: Sequence[bool], k: int) -> float:
    """Return the share, 0 to 1, of relevant items among the first ``k``.

    Args:
        relevant: Whether each result is relevant, in rank order. If there are fewer than ``k``
            results, the missing results count as not relevant.
        k: Depth, 1 or more.

    Raises:
        EvaluationError: ``k`` is below 1.

    Example:
        >>> precision_at_k([True, False, True], k=2)
        0.5
    """
    if k < 1:
        raise EvaluationError(f"expected k of 1 or more, got {k}.")
    return sum(map(bool, relevant[:k])) / k


def pair_accuracy(own_scores: npt.ArrayLike, other_scores: npt.ArrayLike) -> float:
    """Return the share, 0 to 1, of pairs whose own score is above the other; a tie counts half.

    Args:
        own_scores: Scores ``[N]`` of each picture with its own caption.
        other_scores: Scores ``[N]`` of the same pictures with a caption changed in one
            detail, such as swapped colours.

    Raises:
        EvaluationError: The shapes differ, the arrays are empty, or a score is not finite.

    Example:
        >>> pair_accuracy([0.9, 0.4, 0.7], [0.1, 0.5, 0.7])
        0.5
    """
    own, other = np.asarray(own_scores, np.float64), np.asarray(other_scores, np.float64)
    if own.ndim != 1 or own.shape != other.shape or not len(own):
        raise EvaluationError(
            f"expected two equally long lists of scores, got shapes {own.shape} and {other.shape}."
        )
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        raise EvaluationError("expected finite scores, got NaN or infinity among them.")
    return float(np.mean((own > other) + 0.5 * (own == other)))


def _score_rows(
    queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32], chunk: int | None
) -> Iterator[npt.NDArray[np.float32]]:
    step = chunk or max(1, _SCORES_AT_ONCE // len(gallery))
    for start in range(0, len(queries), step):
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            scores = queries[start : start + step] @ gallery.T
        if not np.isfinite(scores).all():
            raise EvaluationError(
                "expected finite scores, got an overflow. Normalise the embeddings."
            )
        yield from scores


def _embeddings(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    rows = np.asarray(values, dtype=np.float32)
    if rows.ndim != 2 or not rows.size:
        raise EvaluationError(
            f"expected {name} as a filled [N, D] array, got shape {list(rows.shape)}."
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise EvaluationError(
            f"expected finite embeddings, got NaN or infinity in {len(bad)} rows of {name}, "
            f"first in row {bad[0]}. Check the picture or caption of that row."
        )
    return rows


def _labels(name: str, values: npt.ArrayLike, length: int) -> npt.NDArray[np.generic]:
    labels = np.asarray(values)
    if labels.shape != (length,):
        raise EvaluationError(
            f"expected {name} of shape [{length}], one per embedding, got {list(labels.shape)}."
        )
    return labels
