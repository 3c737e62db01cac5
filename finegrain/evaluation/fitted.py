"""What a plan states about the scores of its model, fitted on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finegrain.encoder import Encoder
from finegrain.evaluation.background import Background, bank_of
from finegrain.evaluation.match_probability import (
    LEAST_SIZE,
    MIN_QUERIES,
    MatchProbability,
    fit_or_none,
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
    texts = encoder.encode_texts([caption for sample in used for caption in sample.captions])
    numbers = [len(sample.captions) for sample in used]
    scores = texts.astype(np.float64) @ images.T
    right = np.repeat(pids, numbers)[:, None] == pids[None]
    first = np.cumsum([0, *numbers[:-1]])
    probability = fit_or_none(scores[first], right[first])
    bank = bank_of(training_captions)
    if len(bank) < MIN_BANK:
        return Fitted(probability)
    captions = encoder.encode_texts(bank)
    background = Background.chosen(captions, images, scores, right, source=source)
    return Fitted(probability, background.fitted(images, scores[first], right[first]))
