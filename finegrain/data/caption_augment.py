"""Caption augmentation for training, as a deterministic function of a caption and a seed."""

from __future__ import annotations

import random


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
