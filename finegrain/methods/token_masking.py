"""Masking, replacing and dropping of caption tokens."""

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
"""Id of the mask token. CLIP has none, so IRRA uses the last word of its vocabulary."""

_END_OF_WORD = "</w>"


class Masked(NamedTuple):
    """Captions with masked words.

    Attributes:
        ids: The input with some words masked, ``[N, L]``.
        targets: Ids of the original words, ``[N, L]``; 0 where nothing is to be predicted.
    """

    ids: Tensor
    targets: Tensor


def mask_words(ids: Tensor, *, rate: float = 0.15) -> Masked:
    """Mask words as in BERT, with the token rules of IRRA.

    Source: Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805.

    A share ``rate`` of the words is chosen. Of these, 80 % become :data:`MASK`, 10 % become
    another word, and 10 % stay. Start, end and padding are not chosen. If no word of a caption
    is chosen, the first token after its start is masked.

    Args:
        ids: Token ids of CLIP, ``[N, L]`` with ``L`` at least 2.
        rate: Share of the words, 0 to 1.
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
    """True for ids of CLIP that end a word, bool ``[49408]``; includes the start and end ids."""
    vocabulary: dict[str, int] = json.loads(clip_tokenizer().to_json())["model"]["vocab"]
    ends = np.zeros(len(vocabulary), dtype=np.bool_)
    ends[[id_ for piece, id_ in vocabulary.items() if piece.endswith(_END_OF_WORD)]] = True
    ends[MASK + 1 :] = True
    return ends


def mask_whole_words(ids: Tensor, ends: Tensor, *, rate: float = 0.15, most: int = 10) -> Masked:
    """Mask whole words as in BERT with whole-word masking.

    Words are chosen in random order if all of their tokens fit into a budget. The budget is a
    share ``rate`` of the caption's tokens, including start and end, but at least 1 and at most
    ``most``. 80 % of the chosen tokens become :data:`MASK`, 10 % become another token, and 10 %
    stay. A caption in which every word exceeds the budget is not masked.

    Args:
        ids: Token ids of CLIP, ``[N, L]``, padded with 0.
        ends: True for ids that end a word, bool ``[V]``; see :func:`clip_word_ends`.
        rate: Share of the tokens, 0 to 1.
        most: Maximum number of chosen tokens per caption.
    """
    budget = ((ids > 0).sum(dim=1) * rate).round().clamp(1, most)
    chosen = _choose(number_words(ids, ends), budget)
    draw = torch.rand(ids.shape, device=ids.device)
    others = torch.randint_like(ids, 1, MASK)
    hidden = torch.where(draw < 0.8, MASK, torch.where(draw < 0.9, others, ids))
    return Masked(torch.where(chosen, hidden, ids), torch.where(chosen, ids, 0))


def number_words(ids: Tensor, ends: Tensor) -> Tensor:
    """Number of the word of each token, from 1; 0 for start, end and padding: ``[N, L]``."""
    before = F.pad(ends[ids[:, :-1].long()].long().cumsum(dim=1), (1, 0))
    return torch.where((ids > 0) & (ids < MASK), before, 0)


def _choose(words: Tensor, budget: Tensor) -> Tensor:
    """Choose words in random order while they fit the budget: bool ``[N, L]``."""
    order = torch.rand(words.shape, device=words.device).argsort(dim=1) + 1
    chosen = torch.zeros_like(words, dtype=torch.bool)
    for number in order.T:
        tokens = words == number[:, None]
        fits = chosen.sum(dim=1) + tokens.sum(dim=1) <= budget
        chosen |= tokens & fits[:, None]
    return chosen


class Disturbed(NamedTuple):
    """Captions with some words changed: ids ``[N, L]`` and end-of-text positions ``[N]``."""

    ids: Tensor
    eot: Tensor


def disturb_words(ids: Tensor, eot: Tensor, *, rate: float = 0.2) -> Disturbed:
    """Change a share ``rate`` of the words, as the released code of RDE does.

    Of these, 60 % become :data:`MASK`, 20 % become another word, and 20 % are dropped, which
    moves the following tokens to the left. Start and end stay.

    Args:
        ids: Token ids of CLIP, ``[N, L]``, padded with 0.
        eot: Position of each end-of-text token, ``[N]``.
        rate: Share of the words, 0 to 1.
    """
    draw = torch.rand(ids.shape, device=ids.device)
    is_word = (ids > 0) & (ids < MASK)
    others = torch.randint_like(ids, 1, MASK)
    changed = torch.where(draw < 0.6 * rate, MASK, torch.where(draw < 0.8 * rate, others, ids))
    dropped = is_word & (draw >= 0.8 * rate) & (draw < rate)
    changed = torch.where(is_word, changed, ids)
    order = dropped.int().argsort(dim=1, stable=True)
    ends = eot - dropped.sum(dim=1).to(eot.dtype)
    beyond = torch.arange(ids.shape[1], device=ids.device) > ends[:, None]
    return Disturbed(changed.gather(1, order).masked_fill(beyond, 0), ends)


class Caption(NamedTuple):
    """Captions in the form of RaSa: without an end token.

    Attributes:
        ids: Token ids ``[N, L]``; 0 for padding.
        seen: True for tokens of the caption, including its start, bool ``[N, L]``.
    """

    ids: Tensor
    seen: Tensor

    def cropped(self) -> Caption:
        """Remove padding beyond the longest caption."""
        longest = int(self.seen.sum(dim=1).max())
        return Caption(self.ids[:, :longest], self.seen[:, :longest])


class Changed(NamedTuple):
    """Captions with changed words.

    Attributes:
        ids: Token ids ``[N, L]``.
        at: True for words that enter the loss, bool ``[N, L]``.
    """

    ids: Tensor
    at: Tensor


def hide_words(caption: Caption, *, rate: float, special: SpecialIds, vocabulary: int) -> Changed:
    """Mask words as in BERT, with the token rules of ALBEF (Devlin et al. 2019, section 3.1).

    A share ``rate`` of the words is chosen. Of these, 80 % are masked, 10 % become any entry of
    the vocabulary, and 10 % stay. It may happen that no word of a caption is chosen.

    Args:
        caption: The captions.
        rate: Share of the words, 0 to 1.
        special: Ids of the start, mask and padding tokens.
        vocabulary: Size of the vocabulary.
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
    """Replace every word of a caption by a sample from a model's predictions.

    Args:
        logits: Predictions of a model for the masked caption, ``[N, L, V]``.
        caption: The original caption.
        special: Special ids. A position where the start or padding id is drawn does not enter
            the loss.
    """
    ids, seen = caption
    drawn = torch.multinomial(logits.float().softmax(dim=-1).flatten(0, 1), 1).view(ids.shape)
    drawn[:, 0] = special.start
    drawn = torch.where(seen, drawn.to(ids.dtype), ids)
    known = seen & (drawn != special.start)
    return Changed(drawn, known if special.pad is None else known & (drawn != special.pad))
