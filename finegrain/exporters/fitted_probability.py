"""The probability of a match, fitted at the export on the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError
from finegrain.evaluation.match_probability import LEAST_SIZE, MIN_QUERIES, fit
from finegrain.records import Sample, identities

MAX_PICTURES = 1000


def fitted(encoder: Encoder, samples: Sequence[Sample]) -> Mapping[str, float] | None:
    """Coefficients that are fitted with the first caption of each sample as a query.

    Args:
        encoder: The model.
        samples: Samples that the model was not trained on; the first 1,000 are used.

    Returns:
        The coefficients; None if there are too few samples. The plan then has none, and
        ``finegrain calibrate`` can add them.
    """
    used = samples[:MAX_PICTURES]
    if len(used) < max(MIN_QUERIES, 2 * LEAST_SIZE):
        return None  # before encoding
    pids = identities(sample.pid for sample in used)
    images = encoder.encode_images([sample.image for sample in used])
    texts = encoder.encode_texts([sample.captions[0] for sample in used])
    scores = texts.astype(np.float64) @ images.T
    try:
        return fit(scores, pids[:, None] == pids[None]).to_dict()
    except EvaluationError:
        return None
