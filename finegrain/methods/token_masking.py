"""Tokens of a caption masked, replaced or dropped, for a model to predict or to do without."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finegrain.models.albef_text import SpecialIds
from finegrain.preprocess.clip_bpe import clip_tokenizer

MASK = 49405
"""The last word of CLIP's vocabulary, which IRRA gives up to stand for a hidden one."""

_END_OF_WORD = "</w>"


class Masked(NamedTuple):
    """Captions with hidden words.

    Attributes:
        ids: ``[N, L]``, as the input with some words replaced.
        targets: What stood there, ``[N, L]``; 0 where nothing is to be found.
    """

    ids: Tensor
    targets: Tensor


def mask_words(ids: Tensor, *, rate: float = 0.15) -> Masked:
    """Hide words as BERT does (Devlin et al. 2019, section 3.1), with IRRA's token rules.

    Of the words, a share ``rate`` is chosen; of those 80 % become :data:`MASK`, 10 % another
    word, and 10 % stay. Start, end and padding are never chosen, but of a caption in which the
    draw chose nothing the first token after the start is hidden, whatever it is.

    Args:
        ids: Token ids of CLIP, ``[N, L]`` with ``L`` at least 2.
    """
    draw = torch.rand(ids.shape, device=ids.device)
    chosen = (ids > 0) & (ids < MASK) & (draw < rate)
    others = torch.randint_like(ids, 1, MASK)
    hidden = torch.where(draw < 0.8 * rate, MASK, torch.where(draw < 0.9 * rate, others, ids))
    first = ~chosen.any(dim=1)
    chosen[:, 1] |= first
    hidden[:, 1].masked_fill_(first, MASK)
    return Masked(torch.where(chosen, hidden, ids), torch.where(chosen, ids, 0))


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
    chosen tokens 80 % become :data:`MASK`, 10 % another, and 10 %
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


class Disturbed(NamedTuple):
    """Captions as they came, but for some words: ids ``[N, L]`` and ends ``[N]``."""

    ids: Tensor
    eot: Tensor


def disturb_words(ids: Tensor, eot: Tensor, *, rate: float = 0.2) -> Disturbed:
    """Change a share ``rate`` of the words, as RDE's released code does.

    Of these 60 % become :data:`MASK`, 20 % another word, and 20 %
    are left out, which moves what follows to the left. Start and end stay.

    Args:
        ids: Token ids of CLIP, ``[N, L]``, padded with 0.
        eot: Position of each end-of-text token, ``[N]``.
    """
    draw = torch.rand(ids.shape, device=ids.device)
    is_word = (ids > 0) & (ids < MASK)
    others = torch.randint_like(ids, 1, MASK)
    changed = torch.where(draw < 0.6 * rate, MASK, torch.where(draw < 0.8 * rate, others, ids))
    left_out = is_word & (draw >= 0.8 * rate) & (draw < rate)
    changed = torch.where(is_word, changed, ids)
    order = left_out.int().argsort(dim=1, stable=True)
    ends = eot - left_out.sum(dim=1).to(eot.dtype)
    beyond = torch.arange(ids.shape[1], device=ids.device) > ends[:, None]
    return Disturbed(changed.gather(1, order).masked_fill(beyond, 0), ends)


class Caption(NamedTuple):
    """Captions as RaSa reads them: without an end token.

    Attributes:
        ids: ``[N, L]``, 0 where nothing is seen.
        seen: Which of them are of the caption, its start included, bool ``[N, L]``.
    """

    ids: Tensor
    seen: Tensor

    def cropped(self) -> Caption:
        """The same captions, padded to the longest of them and no further."""
        longest = int(self.seen.sum(dim=1).max())
        return Caption(self.ids[:, :longest], self.seen[:, :longest])


class Changed(NamedTuple):
    """Captions with other words in them.

    Attributes:
        ids: ``[N, L]``.
        at: Which words a loss is taken of, bool ``[N, L]``.
    """

    ids: Tensor
    at: Tensor


def hide_words(caption: Caption, *, rate: float, special: SpecialIds, vocabulary: int) -> Changed:
    """Hide words as BERT does (Devlin et al. 2019, section 3.1).

    Of the words, a share ``rate`` is chosen; of those 80 % are hidden, 10 % become any entry of
    the vocabulary, and 10 % stay. A caption may keep all its words.
    """
    ids = caption.ids
    draw = torch.rand(ids.shape, device=ids.device)
    chosen = caption.seen & (draw < rate)
    chosen[:, 0] = False
    others = torch.randint_like(ids, vocabulary)
    hidden = torch.where(draw < 0.8 * rate, special.hidden, ids)
    hidden = torch.where((draw >= 0.8 * rate) & (draw < 0.9 * rate), others, hidden)
    return Changed(torch.where(chosen, hidden, ids), chosen)


def replace_words(logits: Tensor, caption: Caption, *, special: SpecialIds) -> Changed:
    """Draw every word of a caption anew.

    Args:
        logits: Of a model that has read the caption with words hidden, ``[N, L, V]``.
        caption: As it was written.
        special: A start or padding that was drawn is passed over by the loss.
    """
    ids, seen = caption
    drawn = torch.multinomial(logits.float().softmax(dim=-1).flatten(0, 1), 1).view(ids.shape)
    drawn[:, 0] = special.start
    drawn = torch.where(seen, drawn.to(ids.dtype), ids)
    known = seen & (drawn != special.start)
    return Changed(drawn, known if special.pad is None else known & (drawn != special.pad))
