"""Wrong pairs on purpose: captions that were given to the wrong pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finegrain.errors import DataError
from finegrain.records import Split


def shuffled(split: Split, share: float, *, seed: int) -> Split:
    """A split in which a share of the captions change places with one another.

    The protocol of learning with noisy correspondence (Huang et al. 2021; for people Qin et
    al. 2024, section 4.1): the pictures and how many captions each has stay. As there, a
    caption may happen to come back to its own picture.

    Args:
        split: What to shuffle.
        share: Of its captions, 0 to 1.
        seed: Says which captions, and where they go.

    Raises:
        DataError: ``share`` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"expected a share of captions between 0 and 1, got {share}")
    captions = [caption for sample in split.samples for caption in sample.captions]
    draw = np.random.default_rng(seed)
    moved = draw.permutation(len(captions))[: int(share * len(captions))]
    told = dict(zip(moved.tolist(), draw.permutation(moved).tolist(), strict=True))
    given = iter([captions[told.get(i, i)] for i in range(len(captions))])
    samples = tuple(
        replace(sample, captions=tuple(next(given) for _ in sample.captions))
        for sample in split.samples
    )
    return replace(split, samples=samples)
