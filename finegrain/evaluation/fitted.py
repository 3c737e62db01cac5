"""What a plan states about the scores of its model, fitted on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError
from finegrain.evaluation.background import Background, bank_of
from finegrain.evaluation.match_probability import (
    LEAST_SIZE,
    MIN_QUERIES,
    Flags,
    MatchProbability,
    Scores,
    fit,
)
from finegrain.records import Sample, identities

MAX_PICTURES = 1000
MIN_BANK = 100
"""Fewest training captions for hub correction."""


class Fitted(NamedTuple):
    """The probability of a match, and hub correction; None where there are too few samples."""

    match_probability: MatchProbability | None = None
    background: Background | None = None


def fitted(
    encoder: Encoder, samples: Sequence[Sample], training_captions: Sequence[str], *, source: str
) -> Fitted:
    """Fit the probability of a match, and choose the settings of hub correction.

    Args:
        encoder: The model.
        samples: Samples that the model was not trained on; the first 1,000 are used. Hub
            correction is chosen on all their captions, and the probability on the first of each.
        training_captions: Captions of other samples; up to 4,000 become the bank.
        source: Where the captions come from.
    """
    used = samples[:MAX_PICTURES]
    if len(used) < max(MIN_QUERIES, 2 * LEAST_SIZE):
        return Fitted()  # before encoding
    pids = identities(sample.pid for sample in used)
    images = encoder.encode_images([sample.image for sample in used])
    first = encoder.encode_texts([sample.captions[0] for sample in used])
    scores, right = first.astype(np.float64) @ images.T, pids[:, None] == pids[None]
    probability = _probability(scores, right)
    bank = bank_of(training_captions)
    if len(bank) < MIN_BANK:
        return Fitted(probability)
    captions = [caption for sample in used for caption in sample.captions]
    background = Background.chosen(
        encoder.encode_texts(bank),
        encoder.encode_texts(captions),
        images,
        np.repeat(pids, [len(sample.captions) for sample in used]),
        pids,
        source=source,
    )
    return Fitted(probability, with_probability(background, scores, right, images))


def with_probability(
    background: Background, scores: Scores, right: Flags, images: NDArray[np.float32]
) -> Background:
    """The same background with the probability of a match, fitted on corrected scores.

    Args:
        background: The settings of hub correction.
        scores: Scores of queries and pictures without correction, ``[Q, G]``.
        right: Which pictures are right, ``[Q, G]``.
        images: Embeddings of the pictures, ``[G, D]``.
    """
    correction = background.hub_correction
    if correction is None:
        return background
    corrected = _probability(scores + correction.biases(images), right)
    return replace(background, match_probability=corrected)


def _probability(scores: Scores, right: Flags) -> MatchProbability | None:
    """The fit; None if the best matches are always right or always wrong."""
    try:
        return fit(scores, right)
    except EvaluationError:
        return None
