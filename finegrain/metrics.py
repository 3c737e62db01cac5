"""Retrieval metrics of the re-identification field, exact and in bounded memory.

Ties, everywhere: among equal scores the gallery's own order decides, as a stable sort
would. All sums are over whole rankings, never over a top-k.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegrain.errors import EvaluationError

_SCORES_AT_ONCE = 1 << 24
"""How many scores are held at a time: 64 MB of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalMetrics:
    """How well queries find their gallery items; metrics in percent.

    Attributes:
        rank1: Queries with a match at rank 1; rank5 and rank10: among the first 5, 10.
        mAP: Mean over queries of the average precision over the whole ranking.
        mINP: Mean inverse negative penalty (Ye et al., 2021): number of matches divided by
            the rank of the last one.
        num_queries: Queries that the means are over.
        num_gallery: Size of the gallery.
        num_without_match: Queries left out because nothing in the gallery matches them.
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
            ranks: Per query the ranks ``[P]`` of its P matches, from 1, ascending; empty
                for a query without a match.
            num_gallery: Size of the gallery.

        Raises:
            EvaluationError: no query has a match.
        """
        all_ranks = list(ranks)
        matched = [row for row in all_ranks if len(row)]
        if not matched:
            raise EvaluationError(
                f"expected a query with a match in the gallery, got {len(all_ranks)} queries "
                f"and {num_gallery} gallery items without one. Check that both use the same pids."
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
    """Rank the gallery for each query by dot product and measure the rankings.

    Args:
        queries: Embeddings ``[Q, D]``, L2-normalised where cosine is meant.
        gallery: Embeddings ``[G, D]``.
        query_pids: Identities ``[Q]``.
        gallery_pids: Identities ``[G]``; equal to the query's is a match.
        query_cameras: Cameras ``[Q]``, integers or names. Given together with
            ``gallery_cameras``, a match from the query's own camera is junk: it is
            neither right nor wrong and leaves the ranking (Zheng et al., 2015).
        gallery_cameras: Cameras ``[G]``.
        chunk: Queries scored at a time. Left out, as many as keep the scores in 64 MB.

    Raises:
        EvaluationError: inputs do not fit each other, hold non-finite numbers, or no query
            has a match.
    """
    query_rows = _embeddings("queries", queries)
    gallery_rows = _embeddings("gallery", gallery)
    if query_rows.shape[1] != gallery_rows.shape[1]:
        raise EvaluationError(
            f"expected queries and gallery of one width, got {query_rows.shape[1]} and "
            f"{gallery_rows.shape[1]}. Embed both with the same model."
        )
    wanted = _labels("query_pids", query_pids, len(query_rows))
    owned = _labels("gallery_pids", gallery_pids, len(gallery_rows))
    same_camera = None
    if (query_cameras is None) != (gallery_cameras is None):
        raise EvaluationError("expected cameras of queries and of gallery, got one of the two.")
    if query_cameras is not None and gallery_cameras is not None:
        seen_by = _labels("query_cameras", query_cameras, len(query_rows))
        taken_by = _labels("gallery_cameras", gallery_cameras, len(gallery_rows))
        same_camera = (seen_by, taken_by)
    if chunk is not None and chunk < 1:
        raise EvaluationError(f"expected chunk of 1 or more, got {chunk}.")

    def ranks() -> Iterator[npt.NDArray[np.int64]]:
        for i, scores in enumerate(_score_rows(query_rows, gallery_rows, chunk)):
            match = owned == wanted[i]
            if same_camera is not None:
                junk = match & (same_camera[1] == same_camera[0][i])
                scores[junk] = -np.inf  # behind every finite score
                match &= ~junk
            yield ranks_of(np.flatnonzero(match), scores)

    return RetrievalMetrics.from_ranks(ranks(), num_gallery=len(gallery_rows))


def ranks_of(
    matches: npt.NDArray[np.intp], scores: npt.NDArray[np.floating]
) -> npt.NDArray[np.int64]:
    """Return the ranks of some gallery items in one query's ranking.

    Args:
        matches: Positions ``[P]`` in the gallery.
        scores: Scores ``[G]`` of the gallery, higher is better, without NaN.

    Returns:
        Ranks ``[P]`` from 1, ascending.
    """
    # Sorting values is several times faster than sorting positions; positions matter
    # only where scores tie, which is rare and cheap to count.
    ascending = np.sort(scores)
    own = scores[matches]
    up_to_own = np.searchsorted(ascending, own, side="right")
    ranks = 1 + len(scores) - up_to_own
    tied = np.flatnonzero(up_to_own - np.searchsorted(ascending, own, side="left") > 1)
    for i in tied:
        ranks[i] += np.count_nonzero(scores[: matches[i]] == own[i])
    return np.sort(ranks)


def precision_at_k(relevant: Sequence[bool], k: int) -> float:
    """Return the share, 0 to 1, of relevant items among the first ``k``.

    Args:
        relevant: Whether each result is relevant, in rank order. Where there are fewer
            than ``k`` results, the missing ones count as not relevant.
        k: Depth, 1 or more.

    Raises:
        EvaluationError: ``k`` is below 1.
    """
    if k < 1:
        raise EvaluationError(f"expected k of 1 or more, got {k}.")
    return sum(map(bool, relevant[:k])) / k


def pair_accuracy(own_scores: npt.ArrayLike, other_scores: npt.ArrayLike) -> float:
    """Return the share, 0 to 1, of pairs whose own score beats the other; ties are half.

    Args:
        own_scores: Scores ``[N]`` of each picture with its own caption.
        other_scores: Scores ``[N]`` of the same pictures with a caption changed in one
            detail, such as swapped colours.

    Raises:
        EvaluationError: the two differ in shape, are empty, or hold non-finite numbers.
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
        with np.errstate(over="ignore", invalid="ignore"):  # told of below
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
            f"first in row {bad[0]}. Look for the picture or caption behind it."
        )
    return rows


def _labels(name: str, values: npt.ArrayLike, length: int) -> npt.NDArray[np.generic]:
    labels = np.asarray(values)
    if labels.shape != (length,):
        raise EvaluationError(
            f"expected {name} of shape [{length}], one per embedding, got {list(labels.shape)}."
        )
    return labels
