"""Words of a caption hidden, exchanged or left out, so that none is relied upon."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.methods.masking import MASK


class Disturbed(NamedTuple):
    """Captions as they came, but for some words: ids ``[N, L]`` and ends ``[N]``."""

    ids: Tensor
    eot: Tensor


def disturb_words(ids: Tensor, eot: Tensor, *, rate: float = 0.2) -> Disturbed:
    """Change a share ``rate`` of the words, as RDE's released code does.

    Of these 60 % become :data:`~finegrain.methods.masking.MASK`, 20 % another word, and 20 %
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
