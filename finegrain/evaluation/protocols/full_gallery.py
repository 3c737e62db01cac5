"""The full-gallery protocol: texts of products search all pictures, and the other way."""

from __future__ import annotations

import numpy as np

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError
from finegrain.evaluation.protocols.candidates import sample_ids, samples_digest
from finegrain.evaluation.protocols.protocol_metrics import ProtocolMetrics, chance
from finegrain.metrics import retrieval_metrics
from finegrain.records import Split


def evaluate_full_gallery(
    encoder: Encoder, split: Split, *, progress: bool = False
) -> ProtocolMetrics:
    """Search all pictures by every product's text, and all texts by every picture.

    A product's text is the first caption of its first sample. All its pictures are right answers.

    Raises:
        EvaluationError: The split is empty.
        ImageError: A picture cannot be read.
    """
    if not split.samples:
        raise EvaluationError(f"expected samples in split {split.name}, got none.")
    pids = split.identities()
    products, first, views = np.unique(pids, return_index=True, return_counts=True)
    images = encoder.encode_images([sample.image for sample in split.samples], progress=progress)
    captions = [split.samples[row].captions[0] for row in first]
    texts = encoder.encode_texts(captions, progress=progress)
    return ProtocolMetrics(
        protocol=f"full gallery: {len(products)} texts, one a product, and {len(pids)} pictures "
        f"of {split.name}, samples {samples_digest(sample_ids(split.samples))}",
        text_to_image=retrieval_metrics(texts, images, products, pids),
        image_to_text=retrieval_metrics(images, texts, pids, products),
        chance={
            "text_to_image": chance(views, np.full(len(views), len(pids))),
            "image_to_text": chance(
                np.ones(len(pids), np.int64), np.full(len(pids), len(products))
            ),
        },
    )
