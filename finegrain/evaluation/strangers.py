"""Which wrong pictures are easy, and which are hard, for an evaluation of decisions.

An easy stranger is in another scene: the data names another camera for it. A hard stranger is in
the same scene, and wears similar clothes: its captions have the greatest share of the words of the
query's captions, among the pictures of its camera. Words are compared, and not embeddings, so the
choice does not depend on the model that is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.evaluation.match_probability import Flags
from finegrain.records import Sample

ALL = "all"
EASY = "easy"
HARD = "hard"

MOST_HARD = 100
"""Largest number of hard strangers of a query."""
LEAST_STRANGERS = 20
_MOST_COMMON = 0.5
_ROWS_AT_ONCE = 1024


def strangers_of(samples: Sequence[Sample], right: Flags) -> Mapping[str, Flags]:
    """Easy and hard strangers of each picture, ``[N, N]``, by kind.

    A kind is left out if a picture has fewer than 20 of it, and both if no cameras are known.

    Args:
        samples: The ``N`` pictures with their captions.
        right: Which pictures show the same person, ``[N, N]``.
    """
    cameras = np.array([sample.camera or "" for sample in samples])
    if (cameras == "").any():
        return {}
    same_scene = cameras[:, None] == cameras[None]
    kinds = {EASY: ~same_scene, HARD: _most_similar(samples, same_scene & ~right)}
    return {
        kind: flags
        for kind, flags in kinds.items()
        if (flags & ~right).sum(axis=1).min() >= LEAST_STRANGERS
    }


def _most_similar(samples: Sequence[Sample], among: Flags) -> Flags:
    """Up to 100 of some pictures for each picture, with the most words in common."""
    words = [set(re.findall(r"\w+", " ".join(s.captions).lower())) for s in samples]
    vocabulary = {word: place for place, word in enumerate(sorted(set().union(*words)))}
    has = np.zeros((len(samples), len(vocabulary)), np.float32)
    for row, own in enumerate(words):
        has[row, [vocabulary[word] for word in own]] = 1
    # words such as "the" and "wearing" say nothing about clothes
    has = has[:, has.mean(axis=0) <= _MOST_COMMON]
    chosen = np.zeros(among.shape, bool)
    for start in range(0, len(samples), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        shared = np.where(among[rows], has[rows] @ has.T, -1.0)
        best = np.argsort(-shared, axis=1, kind="stable")[:, :MOST_HARD]
        np.put_along_axis(chosen[rows], best, True, axis=1)
    return chosen & among
