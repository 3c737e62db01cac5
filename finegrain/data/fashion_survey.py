"""What is there of a fashion dataset, beside what its paper counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from finegrain.data.deepfashion_multimodal import DEEPFASHION_MULTIMODAL
from finegrain.data.fashion_datasets import FashionDataset
from finegrain.data.fashion_gen import FASHION_GEN
from finegrain.data.fashion_iq import FASHION_IQ
from finegrain.data.survey import left_out
from finegrain.errors import DataError
from finegrain.records import Split

FASHION_DATASETS = (FASHION_GEN, FASHION_IQ, DEEPFASHION_MULTIMODAL)

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FashionSurvey:
    """A dataset as it lies on disk; print it to see all of it.

    Attributes:
        splits: What a reader has of it; none where it cannot be read.
        faults: What would falsify a result.
        notes: What differs from the published dataset and falsifies nothing.
    """

    dataset: FashionDataset
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
        parts += [f"NOT SOUND: {fault}" for fault in self.faults]
        parts.append(f"How to get it: {self.dataset.access}" if self.faults else "sound")
        return "\n\n".join(parts)

    def _sizes(self) -> Iterator[tuple[str, int, int, str]]:
        found = self.dataset.count(self.splits)
        for what, wanted in self.dataset.published.items():
            size = found.get(what, 0)
            yield what, size, wanted, f"{size - wanted:+d}" if size != wanted else "none"

    def _problems(self) -> Iterator[str]:
        """The first rows that are left out of each split."""
        for split in self.splits.values():
            more = len(split.problems) - _SHOWN
            rows = [f"left out of {split.name}:", *map(str, split.problems[:_SHOWN])]
            if split.problems:
                yield "\n  ".join(rows + ([f"and {more} more"] if more > 0 else []))


def survey_fashion(root: Path, dataset: FashionDataset) -> FashionSurvey:
    """Look at a dataset on disk. Whatever is wrong with it is in the result, not raised.

    Reading Fashion-Gen writes its pictures beside it, as training does.

    Raises:
        MissingExtraError: Reading it needs what is not installed.
    """
    try:
        splits = dataset.read(root)
    except DataError as error:
        return FashionSurvey(dataset=dataset, root=root, splits={}, faults=(str(error),), notes=())
    faults = list(left_out(splits))
    notes: list[str] = []
    for what, difference in dataset.differing(splits).items():
        # A model trained on a little more or less is still tested as all others are.
        (notes if what.startswith("train ") else faults).append(str(difference))
    return FashionSurvey(
        dataset=dataset, root=root, splits=splits, faults=tuple(faults), notes=tuple(notes)
    )
