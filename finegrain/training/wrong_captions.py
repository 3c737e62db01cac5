"""Captions of other identities, of the same sub-category, from the whole training split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.errors import DataError
from finegrain.records import Sample, Split

SUBCATEGORY = "subcategory"
"""The column of a sample's metadata that groups products like one another."""

_STREAM = 1
"""Sets these draws apart from the others of an item."""


class WrongCaptions:
    """Draws for a sample a caption of another identity (Gao et al. 2020, FashionBERT).

    An identity of the sample's sub-category is drawn, each as likely, and one of its captions. A
    sample whose sub-category is unknown, or has no other identity, takes any other identity.
    """

    def __init__(self, split: Split, written_of: Mapping[int, Sequence[str]]) -> None:
        """
        Args:
            split: Of which captions are drawn.
            written_of: The captions of each identity, by its number in ``split.identities()``.

        Raises:
            DataError: The split has one identity only.
        """
        members: dict[str, set[int]] = defaultdict(set)
        labels: list[int] = split.identities().tolist()
        for sample, label in zip(split.samples, labels, strict=True):
            name = sample.metadata.get(SUBCATEGORY)
            if name is not None:
                members[str(name)].add(label)
        self._written_of = written_of
        self._everyone = sorted(set(labels))
        self._alike = {name: sorted(pids) for name, pids in members.items()}
        if len(self._everyone) < 2:
            raise DataError(
                f"a wrong caption is of another identity, and the {split.name} split has "
                f"{len(self._everyone)}; expected 2 or more"
            )

    def draw(self, sample: Sample, label: int, seed: tuple[int, ...]) -> str:
        """A caption of another identity than `label`, the same for the same seed."""
        alike = self._alike.get(str(sample.metadata.get(SUBCATEGORY)), ())
        pids = alike if len(alike) > 1 else self._everyone
        rng = np.random.default_rng((*seed, _STREAM))
        # One of the others: the last takes the place of the sample's own.
        drawn = pids[rng.integers(len(pids) - 1)]
        written = self._written_of[pids[-1] if drawn == label else drawn]
        return written[int(rng.integers(len(written)))]
