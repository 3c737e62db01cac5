"""What a calibrated precision measures: a few real captions and pictures."""

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
"""Pictures, and captions. The largest value is what is looked for, and it has headroom."""
BATCH = 8


def calibration_batches(encoder: Encoder, samples: Sequence[Sample]) -> dict[str, Batches]:
    """Inputs of the towers by the names of their graphs; nothing is read before they are.

    They are of samples that the parity check does not compare; the last ones, where it
    compares all.
    """
    spare = samples[MAX_COMPARED:][:MAX_CALIBRATED] or samples[-MAX_CALIBRATED:]
    return {TEXT: _captions(encoder, spare), IMAGE: _pictures(encoder, spare)}


def _captions(encoder: Encoder, samples: Sequence[Sample]) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Shorter ones are padded, as those of an engine are."""
    captions = [caption for sample in samples for caption in sample.captions][:MAX_CALIBRATED]
    for start in range(0, len(captions), BATCH):
        tokens = encoder.tokenizer.encode(captions[start : start + BATCH])
        yield {"ids": tokens.ids, "eot": tokens.eot}


def _pictures(encoder: Encoder, samples: Sequence[Sample]) -> Iterator[Mapping[str, NDArray[Any]]]:
    for start in range(0, len(samples), BATCH):
        some = samples[start : start + BATCH]
        yield {"pixels": np.stack([encoder.transform(load_image(s.image)) for s in some])}
