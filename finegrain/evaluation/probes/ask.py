"""The probes of a model on a user's own data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.errors import require
from finegrain.evaluation.probes.accuracy import Accuracy, ProbeReport, Skipped, choice_accuracy
from finegrain.evaluation.probes.attribute_swap import attribute_swaps
from finegrain.evaluation.probes.attributes import IdentityTexts, attributes_of
from finegrain.evaluation.probes.color_swap import color_swaps
from finegrain.evaluation.probes.negation import negations
from finegrain.evaluation.probes.questions import Probe, Question
from finegrain.records import Split

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset

MIN_ITEMS = 30
"""With fewer questions the interval is wider than the differences between models."""


def probe(
    model: str | Path | Encoder,
    data: Dataset | None = None,
    *,
    split: str = "val",
    seed: int = 0,
    min_items: int = MIN_ITEMS,
    progress: bool = True,
) -> ProbeReport:
    """Ask a model about colours, attributes and negation on a split of a dataset.

    Args:
        model: A run folder, a plan, or an encoder.
        data: The dataset. The default is the one that the run or plan was trained on.
        split: Name of the split.
        seed: Seed of the questions. A seed gives the same questions on every machine.
        min_items: A probe with fewer questions is skipped.
        progress: Show progress bars.

    Raises:
        DataError: The dataset cannot be read, or has no such split.
        PlanError, CheckpointError: The model cannot be read.
        EvaluationError: The model is an encoder and ``data`` is missing.
        MissingExtraError: The ``train`` extra, which reads the datasets, is not installed.
    """
    require("torch", "train")
    from finegrain.data.datasets import take_split
    from finegrain.runs.run import open_model

    encoder, data = open_model(model, data)
    return probe_split(
        encoder,
        take_split(data.splits(), split),
        seed=seed,
        min_items=min_items,
        progress=progress,
    )


def probe_split(
    encoder: Encoder,
    split: Split,
    *,
    seed: int = 0,
    min_items: int = MIN_ITEMS,
    progress: bool = False,
) -> ProbeReport:
    """Run all probes on one split; see :func:`probe`.

    Raises:
        ImageError: A picture cannot be read.
    """
    probes = make_probes(split, seed=seed)
    enough = [probe for probe in probes if len(probe.questions) >= min_items]
    scores = _Scores(encoder, (q for probe in enough for q in probe.questions), progress=progress)
    return ProbeReport(
        split=split.name,
        results=tuple(
            Accuracy(
                probe=probe.name,
                items=len(probe.questions),
                choices=probe.choices,
                accuracy=choice_accuracy(scores.of(probe.questions)),
            )
            for probe in enough
        ),
        skipped=tuple(
            Skipped(
                probe=probe.name,
                why=f"expected {min_items} pictures or more with {probe.wanted}, "
                f"got {len(probe.questions)}",
            )
            for probe in probes
            if len(probe.questions) < min_items
        ),
    )


def make_probes(split: Split, *, seed: int = 0) -> list[Probe]:
    """Make the questions of all probes from a split.

    No wrong caption is a caption of the identity, or names a value that the captions or columns
    of the identity name. A picture may still show something that no caption mentions, which
    lowers the accuracy that any model can reach.
    """
    samples = [
        replace(sample, pid=number)
        for sample, number in zip(split.samples, split.identities().tolist(), strict=True)
    ]
    texts, attributes = IdentityTexts(samples), attributes_of(samples)
    return [
        *color_swaps(samples, texts, seed=seed),
        *attribute_swaps(samples, attributes, texts, seed=seed),
        *negations(samples, attributes, texts, seed=seed),
    ]


class _Scores:
    """Scores of questions. Each picture and each caption is encoded once."""

    def __init__(self, encoder: Encoder, questions: Iterable[Question], *, progress: bool) -> None:
        questions = list(questions)
        images = dict.fromkeys(image for q in questions for image in q.images)
        captions = dict.fromkeys(caption for q in questions for caption in q.captions)
        self._rows = {image: row for row, image in enumerate(images)}
        self._columns = {caption: column for column, caption in enumerate(captions)}
        self._images = encoder.encode_images(list(images), progress=progress)
        self._texts = encoder.encode_texts(list(captions), progress=progress)

    def of(self, questions: Sequence[Question]) -> NDArray[np.float32]:
        """Cosines ``[N, C]`` of the pictures and captions of each question."""
        images = np.array([[self._rows[image] for image in q.images] for q in questions])
        texts = np.array([[self._columns[caption] for caption in q.captions] for q in questions])
        images, texts = np.broadcast_arrays(images, texts)
        pairs = zip(images.T, texts.T, strict=True)
        return np.stack([np.sum(self._images[i] * self._texts[t], axis=1) for i, t in pairs], 1)
