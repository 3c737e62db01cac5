"""Words hidden from a caption, for the model to find again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MASK = 49405
"""The last word of CLIP's vocabulary, which IRRA gives up to stand for a hidden one."""


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
