"""Wrong captions: of other identities of the same sub-category, from the training split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.errors import DataError
from finegrain.records import Sample, Split

SUBCATEGORY = "subcategory"
"""Column of a sample's metadata with the sub-category of a product."""

_STREAM = 1
"""Part of the seed that makes these draws independent of an item's other draws."""


class WrongCaptions:
    """Draws a caption of another identity for a sample (Gao et al. 2020, FashionBERT).

    First another identity of the sample's sub-category is drawn uniformly, then one of its
    captions. If the sub-category is unknown or has no other identity, any other identity of the
    split may be drawn.
    """

    def __init__(self, split: Split, written_of: Mapping[int, Sequence[str]]) -> None:
        """
        Args:
            split: The split from which captions are drawn.
            written_of: The captions of each identity, by its number in ``split.identities()``.

        Raises:
            DataError: The split has only one identity.
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
        """Draw a caption of another identity than ``label``; deterministic for a seed."""
        alike = self._alike.get(str(sample.metadata.get(SUBCATEGORY)), ())
        pids = alike if len(alike) > 1 else self._everyone
        rng = np.random.default_rng((*seed, _STREAM))
        # Draw from all but the last identity; if the sample's own is drawn, take the last.
        drawn = pids[rng.integers(len(pids) - 1)]
        written = self._written_of[pids[-1] if drawn == label else drawn]
        return written[int(rng.integers(len(written)))]
