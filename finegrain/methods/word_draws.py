"""Words of a caption hidden, or replaced by what a model takes for likely (RaSa, section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.models.albef_text import SpecialIds


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
