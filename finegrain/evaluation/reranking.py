"""Scores of a match head for the first candidates of many queries, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from finegrain.encoder import Encoder
from finegrain.errors import ImageError
from finegrain.metrics import RetrievalMetrics, ranks_of
from finegrain.preprocess import ImageSource
from finegrain.records import Matched, PictureTokens, Sample, identities
from finegrain.rerank import MATCHED_AT_ONCE, probability_of, rerank

WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Weights of the match probability beside the cosine that are tried on the validation split.

No weight gives the order of the match head alone. The head orders by its scores, but the
probabilities of two certain matches are equal in floating point, so the cosine would decide.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidateScores:
    """Retriever and re-ranker scores of ``Q`` captions that search ``G`` pictures.

    Attributes:
        texts: Embeddings of the captions, ``[Q, D]``.
        images: Embeddings of the pictures, ``[G, D]``.
        query_pids, gallery_pids: Identities, ``[Q]`` and ``[G]``.
        candidates: Indices of each caption's first ``K`` pictures by cosine, best first,
            ``[Q, K]``.
        logits: Log-odds of a match, ``[Q, K]``.
        scores: Scores that order the candidates by the match head alone, ``[Q, K]``.
    """

    texts: NDArray[np.float32]
    images: NDArray[np.float32]
    query_pids: NDArray[np.int64]
    gallery_pids: NDArray[np.int64]
    candidates: NDArray[np.intp]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probabilities of a match, ``[Q, K]``."""
        return probability_of(self.logits)

    def metrics(self, weight: float, *, depth: int | None = None) -> RetrievalMetrics:
        """Metrics of whole rankings whose first candidates are ordered by both scores.

        Args:
            weight: Weight of the match probability; see :func:`finegrain.rerank.rerank`.
            depth: How many candidates are re-ranked. The default is all ``K``.
        """
        return self._metrics(self._by_both(weight, depth))

    def match_metrics(self, *, depth: int | None = None) -> RetrievalMetrics:
        """Metrics of whole rankings whose first candidates are ordered by the match head alone.

        The pictures after the first ``depth`` stay in the order of their cosines. RaSa's released
        code gives all of them one score, so that their order, and the mAP, depend on the sort.
        """
        return self._metrics(self._by_match(depth))

    def best_weight(self) -> float:
        """The weight in :data:`WEIGHTS` with the highest mAP, or the smallest of equal ones."""
        return WEIGHTS[int(np.argmax([self.metrics(weight).mAP for weight in WEIGHTS]))]

    def num_scored(self, weight: float, k: int, *, depth: int) -> NDArray[np.int64]:
        """How many candidates a search scores before its first ``k`` results are final, ``[Q]``.

        Args:
            weight, k: See :func:`finegrain.rerank.rerank`.
            depth: The most candidates that it may score.
        """
        reranked = (
            rerank(
                self.images[self.candidates[row, :depth]] @ text,
                partial(self._matched, row),
                k,
                weight=weight,
                batch=MATCHED_AT_ONCE,
            )
            for row, text in enumerate(self.texts)
        )
        return np.fromiter((ranking.num_scored for ranking in reranked), np.int64)

    def _matched(self, row: int, batch: slice) -> Matched:
        return Matched(self.logits[row, batch], self.scores[row, batch])

    def _metrics(self, rankings: Iterator[NDArray[np.float64]]) -> RetrievalMetrics:
        ranks = (
            ranks_of(np.flatnonzero(self.gallery_pids == pid), scores)
            for pid, scores in zip(self.query_pids, rankings, strict=True)
        )
        return RetrievalMetrics.from_ranks(ranks, num_gallery=len(self.gallery_pids))

    def _by_both(self, weight: float, depth: int | None) -> Iterator[NDArray[np.float64]]:
        for text, places, probability in zip(
            self.texts, self.candidates, self.probability, strict=True
        ):
            ranking = (self.images @ text).astype(np.float64)
            ranking[places[:depth]] += weight * probability[:depth]
            yield ranking

    def _by_match(self, depth: int | None) -> Iterator[NDArray[np.float64]]:
        for text, places, scores in zip(self.texts, self.candidates, self.scores, strict=True):
            ranking = (self.images @ text).astype(np.float64)
            first = scores[:depth].astype(np.float64)
            # Re-ranked pictures come before all others, so their scores exceed every cosine.
            ranking[places[:depth]] = ranking.max() + 1 + first - first.min(initial=0)
            yield ranking


def score_candidates(
    encoder: Encoder,
    samples: Sequence[Sample],
    *,
    depth: int,
    max_captions: int | None = None,
    candidates: NDArray[np.intp] | None = None,
    progress: bool = False,
) -> CandidateScores:
    """Search the pictures of samples by their captions, and score every candidate.

    Args:
        encoder: A model with a match head.
        samples: ``G`` pictures with ``Q`` captions.
        depth: Number of candidates per caption, ``K``. At most ``G`` are scored.
        max_captions: Use only the first ``max_captions`` captions.
        candidates: Indices of pictures to score instead of the first by cosine, ``[Q, K]``.
        progress: Show progress bars.

    Raises:
        ImageError: A picture cannot be read.
        PlanError: The model has no match head.
    """
    pids = identities(sample.pid for sample in samples)
    pairs = [(c, pid) for s, pid in zip(samples, pids, strict=True) for c in s.captions]
    pairs = pairs[:max_captions]
    captions = [caption for caption, _ in pairs]
    images, tokens = encode_with_tokens(encoder, [s.image for s in samples], progress=progress)
    texts = encoder.encode_texts(captions, progress=progress)
    if candidates is None:
        candidates = np.stack(
            [np.argsort(-(images @ text), kind="stable")[:depth] for text in texts]
        )
    logits, scores = (np.empty(candidates.shape, np.float32) for _ in range(2))
    rows = tqdm(captions, unit=" queries", desc="matching", disable=not progress)
    for row, caption in enumerate(rows):
        logits[row], scores[row] = ask_match_head(encoder, caption, tokens, candidates[row])
    return CandidateScores(
        texts=texts,
        images=images,
        query_pids=np.array([pid for _, pid in pairs]),
        gallery_pids=pids,
        candidates=candidates,
        logits=logits,
        scores=scores,
    )


def ask_match_head(
    encoder: Encoder, caption: str, tokens: PictureTokens, places: NDArray[np.intp]
) -> Matched:
    """Match logits and scores of a caption and the pictures at ``K`` places, ``[K]`` each."""
    ask = encoder.matching(caption)
    logits, scores = (np.empty(len(places), np.float32) for _ in range(2))
    for start in range(0, len(places), MATCHED_AT_ONCE):
        batch = slice(start, start + MATCHED_AT_ONCE)
        logits[batch], scores[batch] = ask(tokens[places[batch]])
    return Matched(logits, scores)


def encode_with_tokens(
    encoder: Encoder, pictures: Sequence[ImageSource], *, progress: bool = False
) -> tuple[NDArray[np.float32], PictureTokens]:
    """Encode all pictures to embeddings ``[N, D]`` and tokens.

    Raises:
        ImageError: A picture cannot be read.
    """
    embeddings, codes, scales = [], [], []
    for batch in encoder.stream_images(pictures, tokens=True, progress=progress):
        if batch.problems:
            raise ImageError(str(batch.problems[0]))
        assert batch.tokens is not None  # tokens=True, and no picture is missing
        embeddings.append(batch.embeddings)
        codes.append(batch.tokens.codes)
        scales.append(batch.tokens.scales)
    tokens = PictureTokens(codes=np.concatenate(codes), scales=np.concatenate(scales))
    return np.concatenate(embeddings), tokens
