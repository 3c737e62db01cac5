"""Caption augmentation for training, as a function of the caption and a seed."""

from __future__ import annotations

import random


def drop_words(caption: str, share: float, seed: int) -> str:
    """A caption without some of its words (Wei and Zou 2019, EDA: random deletion).

    Args:
        caption: Words between white space.
        share: Probability of each word to be left out.
        seed: Says which.

    Returns:
        The other words; of a caption that would lose them all, one of them.
    """
    words = caption.split()
    if not words or not share:
        return caption
    draw = random.Random(seed)
    kept = [word for word in words if draw.random() >= share]
    return " ".join(kept or draw.choices(words))
