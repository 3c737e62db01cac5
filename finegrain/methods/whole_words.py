"""Whole words hidden from a caption: no piece of a word gives the others away."""

from __future__ import annotations

import functools
import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finegrain.methods.masking import MASK, Masked
from finegrain.preprocess.clip_bpe import clip_tokenizer

_END_OF_WORD = "</w>"


@functools.cache
def clip_word_ends() -> NDArray[np.bool_]:
    """Which ids of CLIP's vocabulary end a word, ``[49408]``; start and end do too."""
    vocabulary: dict[str, int] = json.loads(clip_tokenizer().to_json())["model"]["vocab"]
    ends = np.zeros(len(vocabulary), dtype=np.bool_)
    ends[[id_ for piece, id_ in vocabulary.items() if piece.endswith(_END_OF_WORD)]] = True
    ends[MASK + 1 :] = True
    return ends


def mask_whole_words(ids: Tensor, ends: Tensor, *, rate: float = 0.15, most: int = 10) -> Masked:
    """Hide words as BERT with whole-word masking does.

    Words are taken in random order as long as all of their tokens fit into a budget: a share
    ``rate`` of the caption with its start and end, 1 at least and ``most`` at most. Of the
    chosen tokens 80 % become :data:`~finegrain.methods.masking.MASK`, 10 % another, and 10 %
    stay. A caption whose words are all longer than its budget stays whole.

    Args:
        ids: Token ids of CLIP, ``[N, L]``, padded with 0.
        ends: Which ids end a word, bool ``[V]``.
    """
    budget = ((ids > 0).sum(dim=1) * rate).round().clamp(1, most)
    chosen = _choose(number_words(ids, ends), budget)
    draw = torch.rand(ids.shape, device=ids.device)
    others = torch.randint_like(ids, 1, MASK)
    hidden = torch.where(draw < 0.8, MASK, torch.where(draw < 0.9, others, ids))
    return Masked(torch.where(chosen, hidden, ids), torch.where(chosen, ids, 0))


def number_words(ids: Tensor, ends: Tensor) -> Tensor:
    """The word that each token is of, from 1; 0 for start, end and padding: ``[N, L]``."""
    before = F.pad(ends[ids[:, :-1].long()].long().cumsum(dim=1), (1, 0))
    return torch.where((ids > 0) & (ids < MASK), before, 0)


def _choose(words: Tensor, budget: Tensor) -> Tensor:
    """Tokens of words that fit, bool ``[N, L]``."""
    order = torch.rand(words.shape, device=words.device).argsort(dim=1) + 1
    chosen = torch.zeros_like(words, dtype=torch.bool)
    for number in order.T:
        tokens = words == number[:, None]
        fits = chosen.sum(dim=1) + tokens.sum(dim=1) <= budget
        chosen |= tokens & fits[:, None]
    return chosen
