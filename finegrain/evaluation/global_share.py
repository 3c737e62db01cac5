"""The share of the global embedding in the score of RDE and ITSELF, chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from finegrain.errors import EvaluationError, require
from finegrain.metrics import RetrievalMetrics, retrieval_metrics

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset

SHARES = (0.1, 0.2, 0.3, 0.32, 0.4, 0.5, 0.6, 0.68, 0.7, 0.8, 0.9)
"""The shares that the released code of ITSELF tries, without those of a single embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalShare:
    """Text-to-image metrics of a split by share of the global embedding.

    Attributes:
        split: Name of the split; never the test split.
        current: The share of the model.
        metrics: Metrics by share, in ascending order.
    """

    split: str
    current: float
    metrics: Mapping[float, RetrievalMetrics]

    @property
    def best(self) -> float:
        """The share with the highest rank1, then mAP; among equals, the nearest to the current."""

        def quality(share: float) -> tuple[float, float, float]:
            metrics = self.metrics[share]
            return metrics.rank1, metrics.mAP, -abs(share - self.current)

        return max(self.metrics, key=quality)

    def to_dict(self) -> dict[str, object]:
        return {
            "split": self.split,
            "current": self.current,
            "best": self.best,
            "text_to_image": {str(n): metrics.to_dict() for n, metrics in self.metrics.items()},
        }

    def __str__(self) -> str:
        rows = [{"share": n, **metrics.to_dict()} for n, metrics in self.metrics.items()]
        table = tabulate(rows, headers="keys", floatfmt=".2f")
        best = self.metrics[self.best]
        share, queries = best.rank1 / 100, best.num_queries - best.num_without_match
        error = 100 * math.sqrt(share * (1 - share) / queries)
        return (
            f"{table}\nbest share of the global embedding on {self.split}: {self.best:g}; the "
            f"model has {self.current:g}. The standard error of rank1 with {queries} captions is "
            f"{error:.1f} points."
        )


def measure_shares(
    model: str | Path,
    data: Dataset | None = None,
    *,
    split: str = "val",
    progress: bool = True,
) -> GlobalShare:
    """Measure shares of the global embedding, which the score of RDE and ITSELF weighs.

    Pictures and captions are encoded once.

    Args:
        model: A run folder or a plan.
        data: The dataset. The default is the one that the model was trained on.
        split: Name of the split.
        progress: Show progress bars.

    Raises:
        EvaluationError: The split is the test split, or the model has a single embedding.
        DataError: The dataset cannot be read, or has no such split.
        PlanError, CheckpointError: The model cannot be read.
        MissingExtraError: The ``train`` extra is not installed.
    """
    if split == "test":
        raise EvaluationError(
            "expected the validation or the training split to choose a share on, got the test "
            "split: the result would not hold for other data. Choose on --split val"
        )
    require("torch", "train")
    from finegrain.data.datasets import take_split
    from finegrain.methods.dual_embedding import DualEmbeddingConfig
    from finegrain.runs.run import open_model, recipe_of_model

    config = recipe_of_model(model).method
    if not isinstance(config, DualEmbeddingConfig):
        raise EvaluationError(
            "expected a model with two embeddings, RDE or ITSELF, to weigh them; got one of the "
            f"method {config.method_name}, which has a single embedding"
        )
    encoder, data = open_model(model, data)
    samples = take_split(data.splits(), split)
    pids = samples.identities()
    captions = [caption for sample in samples.samples for caption in sample.captions]
    caption_pids = np.repeat(pids, [len(sample.captions) for sample in samples.samples])
    images = encoder.encode_images([s.image for s in samples.samples], progress=progress)
    texts = encoder.encode_texts(captions, progress=progress)
    widths, current = (config.global_dim, config.selected_dim), config.global_share

    def measured(share: float) -> RetrievalMetrics:
        # Both sides have the weights of the current share, so one side is scaled by the ratio.
        ratios = share / current, (1 - share) / (1 - current)
        scaled = texts * np.repeat(np.array(ratios, np.float32), widths)
        return retrieval_metrics(scaled, images, caption_pids, pids)

    shares = sorted({*SHARES, current})
    return GlobalShare(
        split=split, current=current, metrics={share: measured(share) for share in shares}
    )
