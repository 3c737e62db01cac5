"""Random changes to training captions: dropped words, and captions of other pictures."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from finegrain.errors import DataError
from finegrain.records import Split


def shuffled(split: Split, share: float, *, seed: int) -> Split:
    """A copy of a split in which a share of the captions is permuted.

    This is the protocol of learning with noisy correspondence (Huang et al., NeurIPS 2021; for
    person search Qin et al. 2024, section 4.1, https://arxiv.org/abs/2308.09911). The pictures and
    their numbers of captions stay. As in the protocol, a caption may return to its own picture.

    Args:
        split: The split to shuffle.
        share: Share of the captions to permute, from 0 to 1.
        seed: Seed of the permutation.

    Raises:
        DataError: ``share`` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"expected a share of captions between 0 and 1, got {share}")
    captions = [caption for sample in split.samples for caption in sample.captions]
    draw = np.random.default_rng(seed)
    moved = draw.permutation(len(captions))[: int(share * len(captions))]
    source = dict(zip(moved.tolist(), draw.permutation(moved).tolist(), strict=True))
    permuted = iter([captions[source.get(i, i)] for i in range(len(captions))])
    samples = tuple(
        replace(sample, captions=tuple(next(permuted) for _ in sample.captions))
        for sample in split.samples
    )
    return replace(split, samples=samples)


def drop_words(caption: str, share: float, seed: int) -> str:
    """Drop random words of a caption.

    This is the random deletion of EDA (Wei and Zou 2019, https://arxiv.org/abs/1901.11196).

    Args:
        caption: Words separated by white space.
        share: Probability that a word is dropped.
        seed: Seed of the draw.

    Returns:
        The remaining words, at least one.
    """
    words = caption.split()
    if not words or not share:
        return caption
    draw = random.Random(seed)
    remaining = [word for word in words if draw.random() >= share]
    return " ".join(remaining or draw.choices(words))
