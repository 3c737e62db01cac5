"""Rewrites captions in everyday words, as a change to training captions.

Captions of the renderer have 184 different words. A model that is trained on them knows no others.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from finegrain.data.everyday_words import READ_AS, with_articles
from finegrain.records import Split

Wording = Literal["plain", "everyday"]

SHARE = 0.5
"""Share of the words with other names that are replaced."""

TYPO_LETTERS = 5
"""A typo needs a word of this many letters."""

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*", re.IGNORECASE)
_KEPT = {
    *("short", "long", "tied", "open", "hooded", "knee-length", "hair", "she", "he", "behind"),
    *("under", "wearing", "carrying", "walking", "standing"),
}
"""Words whose other names suit some of their meanings or forms only."""

_JOINED = {
    *("ankle", "baseball", "brimmed", "crossbody", "denim", "dress", "hand", "hooded", "knit"),
    *("leather", "messenger", "running", "shoulder", "sports", "tee", "woolly"),
}
"""Words that form a name with the word after them, such as "baseball cap"."""


def reworded(split: Split, wording: Wording, *, typos: float, seed: int) -> Split:
    """A copy of a split with captions in other words.

    Args:
        split: The split.
        wording: ``"everyday"`` replaces half of the words that have everyday names by one of them.
        typos: Probability that a word of five letters or more has two letters exchanged.
        seed: Seed of the draws.
    """
    if wording == "plain" and not typos:
        return split
    samples = []
    for number, sample in enumerate(split.samples):
        draw = random.Random(f"finegrain/{seed}/wording/{number}")
        captions = []
        for caption in sample.captions:
            if wording == "everyday":
                caption = in_everyday_words(caption, draw)
            captions.append(mistyped(caption, typos, draw) if typos else caption)
        samples.append(replace(sample, captions=tuple(captions)))
    return replace(split, samples=tuple(samples))


def in_everyday_words(caption: str, draw: random.Random, *, share: float = SHARE) -> str:
    """Replace plain words by everyday, shop, British or American names for the same thing.

    >>> in_everyday_words("A man in a red coat.", random.Random(4), share=1.0)
    'A dude in a reddish trench.'
    """
    before = ""

    def named(match: re.Match[str]) -> str:
        nonlocal before
        word, joined = match[0], before in _JOINED
        before = word.lower()
        names = NAMES.get(before, ())
        if joined or not names or draw.random() >= share:
            return word
        name = draw.choice(names)
        return name[0].upper() + name[1:] if word[0].isupper() else name

    return with_articles(_WORD.sub(named, caption))


def mistyped(text: str, share: float, draw: random.Random) -> str:
    """Exchange two neighbouring letters in a share of the words of five letters or more.

    >>> mistyped("woman in a striped coat", 1.0, random.Random(0))
    'womna in a striepd coat'
    """

    def exchanged(match: re.Match[str]) -> str:
        word = match[0]
        places = [at for at in range(len(word) - 1) if word[at : at + 2].isalpha()]
        if len(word) < TYPO_LETTERS or draw.random() >= share:
            return word
        at = draw.choice(places)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(exchanged, text)


def _names() -> Mapping[str, tuple[str, ...]]:
    """Everyday names by the plain word that they are read as first."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, (plain, *_) in READ_AS.items():
        if name != plain and " " not in plain and plain not in _KEPT and len(name) > 2:
            names[plain].append(name)
    return {plain: tuple(others) for plain, others in names.items()}


NAMES = _names()
"""Everyday names of each plain word of one word."""
