"""Evaluation: one code path for eager models, run folders and exported plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, require
from finegrain.evaluation.background import Background
from finegrain.evaluation.fitted import fitted
from finegrain.evaluation.reranking import score_candidates
from finegrain.metrics import RetrievalMetrics, retrieval_metrics
from finegrain.plan import Plan
from finegrain.records import Split
from finegrain.rerank import RerankBy

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of a split in both directions.

    Attributes:
        split: Name of the split.
        text_to_image: Metrics where every caption searches all pictures of the split.
        image_to_text: Metrics where every picture searches all captions of the split.
        hub_corrected: Text-to-image metrics with hub correction. None if the model has no bank of
            captions.
        corrected_by: A description of the correction. None without one.
        reranked: Text-to-image metrics after the match head has re-ranked the first pictures of
            each caption. None without re-ranking.
        reranked_by: A description of the re-ranked order. None without re-ranking.
    """

    split: str
    text_to_image: RetrievalMetrics
    image_to_text: RetrievalMetrics
    hub_corrected: RetrievalMetrics | None = None
    corrected_by: str | None = None
    reranked: RetrievalMetrics | None = None
    reranked_by: str | None = None

    def to_dict(self) -> dict[str, str | Mapping[str, float | int]]:
        metrics = {name: metrics.to_dict() for name, metrics in self._metrics().items()}
        return {"split": self.split, **metrics, **self._descriptions()}

    def _metrics(self) -> dict[str, RetrievalMetrics]:
        metrics = {
            "text_to_image": self.text_to_image,
            "image_to_text": self.image_to_text,
            "hub_corrected": self.hub_corrected,
            "reranked": self.reranked,
        }
        return {name: of for name, of in metrics.items() if of is not None}

    def _descriptions(self) -> dict[str, str]:
        texts = {"corrected_by": self.corrected_by, "reranked_by": self.reranked_by}
        return {name: text for name, text in texts.items() if text is not None}

    def __str__(self) -> str:
        rows = [
            {"split": self.split, "direction": name.replace("_", " "), **metrics.to_dict()}
            for name, metrics in self._metrics().items()
        ]
        table = tabulate(rows, headers="keys", floatfmt=".2f")
        notes = [f"{name.replace('_', ' ')} {text}" for name, text in self._descriptions().items()]
        return "\n".join([table, *notes])


def evaluate(
    model: str | Path | Encoder,
    data: Dataset | None = None,
    *,
    split: str = "val",
    rerank_k: int | None = None,
    rerank_by: RerankBy = "both",
    prompt: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a model on a split of a dataset.

    Text-to-image metrics are also given with hub correction
    (:mod:`finegrain.evaluation.hub_correction`). Its settings are those of the plan. For a run,
    they are chosen on the validation split of its own dataset, with training captions as the bank;
    the validation split itself is then evaluated without them.

    Args:
        model: A run folder, a plan, or an encoder; an encoder has no hub correction.
        data: The dataset. The default is the one that the run or plan was trained on.
        split: Name of the split.
        rerank_k: How many of the first pictures of each caption the match head re-ranks. None
            evaluates the embeddings alone.
        rerank_by: ``both`` orders by ``cosine + weight * probability of a match``, with the
            weight that is best on the validation split. ``match`` orders by the match head
            alone, as RaSa's paper reports (https://arxiv.org/abs/2305.13653).
        prompt: Template to put each caption into, such as ``a photo of {}``. The default is the
            one of the plan.
        progress: Show progress bars.

    Returns:
        Metrics in percent, in both directions.

    Raises:
        DataError: The dataset cannot be read, or has no such split.
        PlanError, CheckpointError: The model cannot be read, or has no match head to re-rank by.
        QueryError: ``prompt`` does not have one ``{}``.
        EvaluationError: ``rerank_by`` is unknown, or is set without ``rerank_k``.
        MissingExtraError: The ``train`` extra, which reads the datasets, is not installed.
    """
    if rerank_by not in get_args(RerankBy):
        raise EvaluationError(f"expected rerank_by='both' or 'match', got {rerank_by!r}")
    if rerank_k is None and rerank_by != "both":
        raise EvaluationError(
            f"rerank_by={rerank_by!r} says how to re-rank; also set how many: rerank_k=128"
        )
    require("torch", "train")
    from finegrain.data.datasets import take_split
    from finegrain.runs.run import open_model

    is_own_data = data is None
    encoder, data = open_model(model, data)
    if prompt is not None:
        encoder = encoder.with_prompt(prompt)
    if rerank_k is not None:
        encoder.require_match_head()  # fails before minutes of encoding
    splits = data.splits()
    selected = take_split(splits, split)
    background = None
    if isinstance(model, str | Path):
        background = background_of(model, encoder, splits if is_own_data else {}, split)
    if rerank_k is None:
        return evaluate_split(encoder, selected, background, progress=progress)
    scored = score_candidates(encoder, selected.samples, depth=rerank_k, progress=progress)
    towers = _both_directions(
        split, scored.texts, scored.images, scored.query_pids, scored.gallery_pids, background
    )
    if rerank_by == "match":
        order = f"the match logit alone, the first {rerank_k}"
        return replace(towers, reranked=scored.match_metrics(), reranked_by=order)
    validation = scored
    if split != "val":
        samples = take_split(splits, "val").samples
        validation = score_candidates(encoder, samples, depth=rerank_k, progress=progress)
    weight = validation.best_weight()
    order = f"cosine + {weight:g} x probability of a match, the first {rerank_k}"
    return replace(towers, reranked=scored.metrics(weight), reranked_by=order)


def background_of(
    model: str | Path, encoder: Encoder, splits: Mapping[str, Split], split: str
) -> Background | None:
    """The settings of hub correction: of a plan, or chosen for a run on its validation split.

    Args:
        model: A run folder or a plan.
        encoder: Its encoder.
        splits: Splits of the dataset that the run was trained on.
        split: The split to evaluate; None is returned for a run if it is not the test split.
    """
    if not Path(model).is_dir():
        return Background.of_plan(Plan(model))
    if split != "test" or not {"train", "val"} <= splits.keys():
        return None
    captions = [caption for sample in splits["train"].samples for caption in sample.captions]
    return fitted(encoder, splits["val"].samples, captions, source="training captions").background


def evaluate_split(
    encoder: Encoder, split: Split, background: Background | None = None, *, progress: bool = False
) -> Evaluation:
    """Evaluate one split in both directions.

    Raises:
        ImageError: A picture cannot be read. Metrics over fewer pictures would not be comparable.
    """
    pids = split.identities()
    images = encoder.encode_images([sample.image for sample in split.samples], progress=progress)
    captions = [caption for sample in split.samples for caption in sample.captions]
    caption_pids = np.repeat(pids, [len(sample.captions) for sample in split.samples])
    texts = encoder.encode_texts(captions, progress=progress)
    return _both_directions(split.name, texts, images, caption_pids, pids, background)


def _both_directions(
    split: str,
    texts: NDArray[np.float32],
    images: NDArray[np.float32],
    caption_pids: NDArray[np.int64],
    pids: NDArray[np.int64],
    background: Background | None = None,
) -> Evaluation:
    towers = Evaluation(
        split=split,
        text_to_image=retrieval_metrics(texts, images, caption_pids, pids),
        image_to_text=retrieval_metrics(images, texts, pids, caption_pids),
    )
    if background is None:
        return towers
    correction = background.hub_correction
    return replace(
        towers,
        hub_corrected=towers.text_to_image
        if correction is None
        else correction.metrics(texts, images, caption_pids, pids),
        corrected_by=str(background),
    )
