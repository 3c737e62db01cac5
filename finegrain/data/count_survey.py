"""Compares the counts of a dataset on disk with those of its paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from finegrain.data.deepfashion_multimodal import DEEPFASHION_MULTIMODAL
from finegrain.data.fashion_gen import FASHION_GEN
from finegrain.data.fashion_iq import FASHION_IQ
from finegrain.data.karpathy import FLICKR30K, MSCOCO
from finegrain.data.published_dataset import PublishedDataset
from finegrain.data.survey import left_out
from finegrain.errors import DataError
from finegrain.records import Split

COUNTED_DATASETS = (FASHION_GEN, FASHION_IQ, DEEPFASHION_MULTIMODAL, FLICKR30K, MSCOCO)

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CountSurvey:
    """The state of a dataset on disk. Print it to see all of it.

    Attributes:
        dataset: The description of the dataset.
        root: The folder.
        splits: The splits that can be read, by name.
        faults: Differences that make results wrong.
        notes: Differences from the published dataset that do not affect results.
    """

    dataset: PublishedDataset
    root: Path
    splits: Mapping[str, Split]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.dataset.title} in {self.root}"]
        if self.splits:
            sizes = ["", "found", "published", "difference"]
            parts += [
                "\n".join(map(str, self.splits.values())),
                tabulate(self._sizes(), headers=sizes),
                *self._problems(),
            ]
        parts += [f"note: {note}" for note in self.notes]
        parts += [f"INVALID: {fault}" for fault in self.faults]
        parts.append(f"How to get it: {self.dataset.access}" if self.faults else "valid")
        return "\n\n".join(parts)

    def _sizes(self) -> Iterator[tuple[str, int, int, str]]:
        counts = self.dataset.count(self.splits)
        for what, wanted in self.dataset.published.items():
            size = counts.get(what, 0)
            yield what, size, wanted, f"{size - wanted:+d}" if size != wanted else "none"

    def _problems(self) -> Iterator[str]:
        """The first problems of each split."""
        for split in self.splits.values():
            more = len(split.problems) - _SHOWN
            rows = [f"left out of {split.name}:", *map(str, split.problems[:_SHOWN])]
            if split.problems:
                yield "\n  ".join(rows + ([f"and {more} more"] if more > 0 else []))


def survey_counts(root: Path, dataset: PublishedDataset) -> CountSurvey:
    """Survey a dataset on disk. Faults are in the result and are not raised.

    Reading Fashion-Gen writes its pictures beside it, as training does.

    Raises:
        MissingExtraError: A library that reads the dataset is not installed.
    """
    try:
        splits = dataset.read(root)
    except DataError as error:
        return CountSurvey(dataset=dataset, root=root, splits={}, faults=(str(error),), notes=())
    faults = list(left_out(splits))
    notes: list[str] = []
    for what, difference in dataset.differing(splits).items():
        # A training split of another size does not change how a model is tested.
        (notes if what.startswith("train ") else faults).append(str(difference))
    return CountSurvey(
        dataset=dataset, root=root, splits=splits, faults=tuple(faults), notes=tuple(notes)
    )
