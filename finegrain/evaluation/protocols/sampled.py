"""The sampled protocol: one right answer among candidates of the same sub-category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError
from finegrain.evaluation.protocols.candidates import (
    SUBCATEGORY,
    Candidates,
    sample_ids,
    samples_digest,
)
from finegrain.evaluation.protocols.protocol_metrics import ProtocolMetrics, chance
from finegrain.evaluation.reranking import WEIGHTS, ask_match_head, encode_with_tokens
from finegrain.metrics import RetrievalMetrics, ranks_of
from finegrain.records import PictureTokens, Sample, Split
from finegrain.rerank import probability_of

Scores = npt.NDArray[np.float64]

NOT_ASKED = (0.0, 0.0)
"""Probability and score of a pair that the match head did not score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Scores of one query's ``C`` candidates by the towers and by the match head.

    Attributes:
        cosine: Cosine of the embeddings, ``[C]``.
        probability: Probability of a match, ``[C]``; zeros without a match head.
        scores: Scores that order by the match head alone, ``[C]``; zeros without a match head.
        right: Index of the right answer.
    """

    cosine: Scores
    probability: Scores
    scores: Scores
    right: int

    def ranks(self, weight: float | None) -> npt.NDArray[np.int64]:
        """Rank of the right answer by both scores, or by the match head alone if weight is None."""
        both = self.scores if weight is None else self.cosine + weight * self.probability
        return ranks_of(np.array([self.right]), both)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledScores:
    """Scores of all lists, so that several weights can be tried without scoring again.

    Attributes:
        protocol: Name of the protocol with everything that its metrics depend on.
        text_to_image, image_to_text: One entry per query.
    """

    protocol: str
    text_to_image: Sequence[Stages]
    image_to_text: Sequence[Stages]

    def metrics(self, weight: float | None = 0.0) -> ProtocolMetrics:
        """Metrics of candidates in the order of ``cosine + weight * probability``.

        Args:
            weight: See :func:`finegrain.rerank.rerank`. 0 orders by the towers alone, and None by
                the scores of the match head alone.
        """
        sizes = np.array([len(query.cosine) for query in self.text_to_image])
        by_chance = chance(np.ones(len(sizes), np.int64), sizes)

        def metrics_of(queries: Sequence[Stages]) -> RetrievalMetrics:
            ranks = (query.ranks(weight) for query in queries)
            return RetrievalMetrics.from_ranks(ranks, num_gallery=int(sizes.max()))

        return ProtocolMetrics(
            protocol=self.protocol + _described(weight),
            text_to_image=metrics_of(self.text_to_image),
            image_to_text=metrics_of(self.image_to_text),
            chance={"text_to_image": by_chance, "image_to_text": by_chance},
        )

    def best_weight(self) -> float:
        """The weight with the highest mAP, or the smallest of equal ones.

        The mAP is the mean of both directions.
        """

        def both(weight: float) -> float:
            metrics = self.metrics(weight)
            return metrics.text_to_image.mAP + metrics.image_to_text.mAP

        return WEIGHTS[int(np.argmax([both(weight) for weight in WEIGHTS]))]


def evaluate_sampled(
    encoder: Encoder,
    split: Split,
    candidates: Candidates,
    *,
    weight: float = 0.0,
    progress: bool = False,
) -> ProtocolMetrics:
    """Rank each query's candidates in both directions.

    A sample's text is its first caption.

    Args:
        encoder: The model.
        split: The split that the candidates were drawn from.
        candidates: The lists of candidates.
        weight: Weight of the match probability beside the cosine. Above 0, the match head scores
            every candidate; 0 uses the towers alone.
        progress: Show progress bars.

    Raises:
        EvaluationError: The candidates were drawn from other samples.
        ImageError: A picture cannot be read.
        PlanError: There is no match head.
    """
    scores = score_sampled(encoder, split, candidates, match=weight != 0, progress=progress)
    return scores.metrics(weight)


def score_sampled(
    encoder: Encoder,
    split: Split,
    candidates: Candidates,
    *,
    match: bool = True,
    progress: bool = False,
) -> SampledScores:
    """Score each query's candidates by the towers and, with ``match``, by the match head.

    Raises:
        EvaluationError: The candidates were drawn from other samples.
        ImageError: A picture cannot be read.
        PlanError: There is no match head.
    """
    used = _samples(split, candidates)
    place = {name: row for row, name in enumerate(used)}
    lists = {
        place[query]: np.array([place[name] for name in names])
        for query, names in candidates.lists.items()
    }
    pictures = [sample.image for sample in used.values()]
    captions = [sample.captions[0] for sample in used.values()]
    texts = encoder.encode_texts(captions, progress=progress)
    if match:
        images, tokens = encode_with_tokens(encoder, pictures, progress=progress)
        matched = _matched(encoder, captions, tokens, lists, progress=progress)
    else:
        images = encoder.encode_images(pictures, progress=progress)
        matched = {}
    sizes = [len(places) for places in lists.values()]
    short = sum(size < max(sizes) for size in sizes)
    return SampledScores(
        protocol=f"sampled: 1 right of {max(sizes)} candidates of one {SUBCATEGORY}, "
        f"{len(sizes)} queries"
        + (f" ({short} with fewer candidates)" if short else "")
        + f", seed {candidates.seed}, lists {candidates.digest}",
        text_to_image=[
            _stages(
                images[places] @ texts[query],
                [matched.get((query, p), NOT_ASKED) for p in places.tolist()],
                places.tolist().index(query),
            )
            for query, places in lists.items()
        ],
        image_to_text=[
            _stages(
                texts[places] @ images[query],
                [matched.get((p, query), NOT_ASKED) for p in places.tolist()],
                places.tolist().index(query),
            )
            for query, places in lists.items()
        ],
    )


def _samples(split: Split, candidates: Candidates) -> dict[str, Sample]:
    """Id to sample, of all samples on the lists.

    Raises:
        EvaluationError: The candidates were drawn from other samples.
    """
    ids = sample_ids(split.samples)
    if samples_digest(ids) != candidates.dataset:
        raise EvaluationError(
            f"expected the samples that the candidates were drawn from ({candidates.dataset}), "
            f"got others ({samples_digest(ids)}). Take the same split, or draw candidates from "
            "this one."
        )
    needed = set().union(*candidates.lists.values())
    if unknown := sorted(needed.difference(ids)):
        raise EvaluationError(
            f"expected candidates among the samples, got {unknown[0]!r} and "
            f"{len(unknown) - 1} more that are no samples. Draw the candidates again."
        )
    return {name: s for name, s in zip(ids, split.samples, strict=True) if name in needed}


def _matched(
    encoder: Encoder,
    captions: Sequence[str],
    tokens: PictureTokens,
    lists: Mapping[int, npt.NDArray[np.intp]],
    *,
    progress: bool,
) -> dict[tuple[int, int], tuple[float, float]]:
    """Probability and score of each pair of caption and picture that share a list."""
    # The head reads one caption with many pictures, so both directions are grouped by caption.
    meets: dict[int, set[int]] = defaultdict(set)
    for query, places in lists.items():
        meets[query].update(places.tolist())
        for place in places.tolist():
            meets[place].add(query)
    answers: dict[tuple[int, int], tuple[float, float]] = {}
    for caption, met in tqdm(meets.items(), unit=" captions", disable=not progress):
        pictures = np.array(sorted(met))
        logits, scores = ask_match_head(encoder, captions[caption], tokens, pictures)
        both = zip(probability_of(logits).tolist(), scores.tolist(), strict=True)
        answers |= zip(((caption, p) for p in pictures.tolist()), both, strict=True)
    return answers


def _stages(
    cosine: npt.NDArray[np.float32], answers: Sequence[tuple[float, float]], right: int
) -> Stages:
    probability, scores = np.array(answers, np.float64).T
    return Stages(
        cosine=cosine.astype(np.float64), probability=probability, scores=scores, right=right
    )


def _described(weight: float | None) -> str:
    if weight is None:
        return ", match head alone"
    return f", match head at weight {weight:g}" if weight else ""
