"""Loss of detecting replaced words in a caption."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def replaced_words(logits: Tensor, is_replaced: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of whether a word was replaced.

    Source: Clark et al. 2020 (ELECTRA, https://arxiv.org/abs/2003.10555), the discriminator loss
    without its factor, as used by Bai et al. 2023 (RaSa, https://arxiv.org/abs/2305.13653),
    section 3.3, where the momentum model is the generator.

    Args:
        logits: ``[N, L, 2]``. Column 0 is "original", column 1 "replaced".
        is_replaced: True for replaced words, bool ``[N, L]``.
        known: True for words that count, bool ``[N, L]``.

    Returns:
        A scalar in nats, the mean over words that count; 0 if no word counts.

    Example:
        >>> import torch
        >>> from finegrain.losses import replaced_words
        >>> is_replaced = torch.tensor([[False, True, False]])
        >>> replaced_words(torch.zeros(1, 3, 2), is_replaced, torch.tensor([[True, True, False]]))
        tensor(0.6931)
    """
    count = known.sum().clamp(min=1)
    return F.cross_entropy(logits[known], is_replaced[known].long(), reduction="sum") / count
