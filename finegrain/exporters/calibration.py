"""Calibration data: real captions and pictures for precisions with measured scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.exporters.parity import MAX_COMPARED
from finegrain.exporters.precision import Batches
from finegrain.plan import IMAGE, TEXT
from finegrain.preprocess import load_image
from finegrain.records import Sample

MAX_CALIBRATED = 64
"""Number of pictures and of captions. Calibration takes the largest value, with headroom."""
BATCH = 8


def calibration_batches(encoder: Encoder, samples: Sequence[Sample]) -> dict[str, Batches]:
    """Name of a tower's graph to its inputs, which are read lazily.

    The samples are not those of the parity check. Where the check compares all samples, the last
    ones are used.
    """
    spare = samples[MAX_COMPARED:][:MAX_CALIBRATED] or samples[-MAX_CALIBRATED:]
    return {TEXT: _captions(encoder, spare), IMAGE: _pictures(encoder, spare)}


def _captions(encoder: Encoder, samples: Sequence[Sample]) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Batches of captions. Short captions are padded, as an engine pads them."""
    captions = [caption for sample in samples for caption in sample.captions][:MAX_CALIBRATED]
    for start in range(0, len(captions), BATCH):
        tokens = encoder.tokenizer.encode(captions[start : start + BATCH])
        yield {"ids": tokens.ids, "eot": tokens.eot}


def _pictures(encoder: Encoder, samples: Sequence[Sample]) -> Iterator[Mapping[str, NDArray[Any]]]:
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        yield {"pixels": np.stack([encoder.transform(load_image(s.image)) for s in batch])}
