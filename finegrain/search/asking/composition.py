"""The score of a picture with words that change it, such as "but in a blue jacket".

Both parts are measured from the mean of the gallery, brought to one scale, and multiplied
(BASIC: https://github.com/billpsomas/icir)::

    a = 1 + picture . (g - mean g) / M
    b = 1 + (words - mean of neutral words) . (g - mean g) / N
    s = a^(1 - w) * b^w,    or min(0, (1 - w) a + w b) if a or b is not positive

``M`` and ``N`` are fixed for a gallery: the largest distance below the mean that pictures and
garment phrases have in it, so that ``a`` and ``b`` are rarely negative. A product favours pictures
that fit both parts over those that fit one of them very well. By the inequality of the arithmetic
and geometric means, ``(1 - w) a + w b`` is never below it, and that is an inner product.

Words whose embedding is that of neutral words give ``b = 1``, so they do not change the order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from finegrain.encoder import Encoder
from finegrain.gallery.scoring import Scores
from finegrain.index.exact import Vectors

WEIGHT = 0.7
"""Default weight of the words."""

NEUTRAL = (
    "a person", "a man", "a woman", "this person", "someone", "a picture of a person",
    "the same person", "a pedestrian",
)  # fmt: skip
GARMENTS = tuple(
    f"{color} {garment}"
    for color in ("black", "white", "red", "blue", "green", "grey")
    for garment in ("coat", "shirt", "dress", "bag", "trousers", "shoes")
)
_SCALE_ROWS = 200
_CHANGES_NOTHING = re.compile(
    r"\W*(?:(?:a|an|the|this|that|these|same|person|people|picture|photo|image|one|of|and|but|also"
    r"|with|in|like|as|similar|to|looks?|looking)\b\W*)*",
    re.IGNORECASE,
)


def changes_nothing(text: str) -> bool:
    """Whether words leave a picture as it is.

    >>> changes_nothing("this same person"), changes_nothing("this person in red")
    (True, False)
    """
    return _CHANGES_NOTHING.fullmatch(text) is not None


def change_of(text: str) -> str:
    """The text without the conjunction that joins it to a picture.

    >>> change_of("but in a blue jacket")
    'in a blue jacket'
    """
    return re.sub(r"^\W*(?:(?:and|but|now|instead)\b\W*)+", "", text, flags=re.IGNORECASE) or text


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """A product of the score of a picture and that of words.

    Attributes:
        picture, words: ``a = picture . g + picture_offset``, and likewise ``b``; ``[D]`` each.
        weight: Weight of the words, from 0 to 1.
    """

    picture: Vectors
    picture_offset: float
    words: Vectors
    words_offset: float
    weight: float

    @property
    def vector(self) -> Vectors:
        weight = np.float32(self.weight)
        return (1 - weight) * self.picture + weight * self.words

    @property
    def offset(self) -> float:
        return (1 - self.weight) * self.picture_offset + self.weight * self.words_offset

    def scores(self, rows: Vectors) -> Scores:
        exact = rows.astype(np.float64)
        a = exact @ self.picture + self.picture_offset
        b = exact @ self.words + self.words_offset
        product = np.maximum(a, 0) ** (1 - self.weight) * np.maximum(b, 0) ** self.weight
        lower = np.minimum((1 - self.weight) * a + self.weight * b, 0)
        scores: Scores = np.where((a > 0) & (b > 0), product, lower)
        return scores


class Composer:
    """Composes pictures and words.

    Args:
        encoder: Encodes the phrases that the scale of words comes from.
    """

    def __init__(self, encoder: Encoder) -> None:
        phrases = encoder.encode_texts([*NEUTRAL, *GARMENTS]).astype(np.float64)
        self._neutral = phrases[: len(NEUTRAL)].mean(axis=0)
        self._garments = phrases[len(NEUTRAL) :] - self._neutral
        self._scale: _Scale | None = None

    def compose(self, picture: Vectors, words: Vectors, weight: float, sample: Vectors) -> Composed:
        """The score of a picture with words.

        Args:
            picture, words: Embeddings ``[D]``.
            weight: Weight of the words, from 0 to 1.
            sample: Vectors of the gallery, ``[S, D]``.
        """
        scale = self._scale_of(sample)
        a = picture / scale.pictures
        b = (words - self._neutral) / scale.words
        return Composed(
            picture=a.astype(np.float32),
            picture_offset=1 - float(a @ scale.mean),
            words=b.astype(np.float32),
            words_offset=1 - float(b @ scale.mean),
            weight=weight,
        )

    def _scale_of(self, sample: Vectors) -> _Scale:
        """The scale of a gallery, computed again when its sample is another one."""
        known = self._scale
        if known is not None and known.sample is sample:
            return known
        rows = sample.astype(np.float64)
        mean = rows.mean(axis=0)
        step = -(-len(rows) // _SCALE_ROWS)
        self._scale = _Scale(
            sample, mean, _depth(rows[::step], rows - mean), _depth(self._garments, rows - mean)
        )
        return self._scale


class _Scale(NamedTuple):
    """Mean of a sample, and what one of the scores of pictures and of words is measured in."""

    sample: Vectors
    mean: Scores
    pictures: float
    words: float


def _depth(queries: Scores, centred: Scores) -> float:
    """How far below zero the lowest score of these queries is; 1 if none is."""
    lowest = float((queries @ centred.T).min())
    return -lowest if lowest < -1e-9 else 1.0
