"""What a match head says of the first candidates of many queries, and what that is worth."""

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
"""What a certain match may be worth in cosine.

No weight gives the order of the match head alone, which is that of its scores: where two matches
are certain, their probabilities are equal in floating point, and the cosine would decide.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecondStage:
    """Both stages of a search of ``G`` pictures by ``Q`` captions, ``K`` candidates deep.

    Attributes:
        texts: Embeddings of the captions, ``[Q, D]``.
        images: Of the pictures, ``[G, D]``.
        query_pids, gallery_pids: Identities, ``[Q]`` and ``[G]``.
        candidates: Places of each caption's first pictures by cosine, best first, ``[Q, K]``.
        logits: Log-odds of a match, ``[Q, K]``.
        scores: What the match head orders by when it is asked alone, ``[Q, K]``.
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
        """Of a match, ``[Q, K]``."""
        return probability_of(self.logits)

    def metrics(self, weight: float, *, depth: int | None = None) -> RetrievalMetrics:
        """Of whole rankings, the first ``depth`` candidates put in order by both stages.

        Args:
            weight: As in :func:`finegrain.rerank.rerank`.
            depth: All ``K`` by default.
        """
        return self._metrics(self._by_both(weight, depth))

    def match_metrics(self, *, depth: int | None = None) -> RetrievalMetrics:
        """Of whole rankings, the first ``depth`` candidates put in order by the match head alone.

        The pictures after them stay in the order of their cosines. (The released code of RaSa gives
        them all one score, so that their order, and with it the mAP, is up to the sort.)
        """
        return self._metrics(self._by_match(depth))

    def best_weight(self) -> float:
        """Of :data:`WEIGHTS` the one with the highest mAP, the least of equals."""
        return WEIGHTS[int(np.argmax([self.metrics(weight).mAP for weight in WEIGHTS]))]

    def num_scored(self, weight: float, k: int, *, depth: int) -> NDArray[np.int64]:
        """Candidates that a search asks the head about until its first ``k`` are settled, ``[Q]``.

        Args:
            weight, k: As in :func:`finegrain.rerank.rerank`.
            depth: Candidates that it may ask about.
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
        return np.fromiter((one.num_scored for one in reranked), np.int64)

    def _matched(self, row: int, some: slice) -> Matched:
        return Matched(self.logits[row, some], self.scores[row, some])

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
            # Above every cosine.
            ranking[places[:depth]] = ranking.max() + 1 + first - first.min(initial=0)
            yield ranking


def second_stage(
    encoder: Encoder,
    samples: Sequence[Sample],
    *,
    depth: int,
    max_captions: int | None = None,
    candidates: NDArray[np.intp] | None = None,
    progress: bool = False,
) -> SecondStage:
    """Search the pictures of samples by their captions, every candidate scored.

    Args:
        encoder: A model with a match head.
        samples: ``G`` pictures with ``Q`` captions.
        depth: Candidates of a caption, ``K``; at most all.
        max_captions: Use only so many captions, the first.
        candidates: Which to score instead of the first by cosine, ``[Q, K]``.
        progress: Show bars.

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
        firsts = [np.argsort(-(images @ text), kind="stable")[:depth] for text in texts]
        candidates = np.stack(firsts)
    logits, scores = (np.empty(candidates.shape, np.float32) for _ in range(2))
    rows = tqdm(captions, unit=" queries", desc="matching", disable=not progress)
    for row, caption in enumerate(rows):
        logits[row], scores[row] = ask_match_head(encoder, caption, tokens, candidates[row])
    return SecondStage(
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
    """What the match head says of a caption and the pictures at ``K`` places, ``[K]`` each."""
    ask = encoder.matching(caption)
    logits, scores = (np.empty(len(places), np.float32) for _ in range(2))
    for start in range(0, len(places), MATCHED_AT_ONCE):
        some = slice(start, start + MATCHED_AT_ONCE)
        logits[some], scores[some] = ask(tokens[places[some]])
    return Matched(logits, scores)


def encode_with_tokens(
    encoder: Encoder, pictures: Sequence[ImageSource], *, progress: bool = False
) -> tuple[NDArray[np.float32], PictureTokens]:
    """Embeddings ``[N, D]`` and tokens of all pictures.

    Raises:
        ImageError: A picture cannot be read.
    """
    embeddings, codes, scales = [], [], []
    for batch in encoder.stream_images(pictures, tokens=True, progress=progress):
        if batch.problems:
            raise ImageError(str(batch.problems[0]))
        assert batch.tokens is not None  # asked for, and no picture is missing
        embeddings.append(batch.embeddings)
        codes.append(batch.tokens.codes)
        scales.append(batch.tokens.scales)
    tokens = PictureTokens(codes=np.concatenate(codes), scales=np.concatenate(scales))
    return np.concatenate(embeddings), tokens
