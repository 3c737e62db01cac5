"""Loss of the masked colour words of a caption."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def color_words(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the masked colour words; 0 if no word is masked.

    Source: the colour-word task of LapsCore (Wu et al., ICCV 2021); see
    :mod:`finegrain.methods.color_tasks`.

    Args:
        scores: Logits of ``C`` colour words for each of ``W`` masked words, ``[W, C]``.
        targets: Index of the original word, int64 ``[W]``.

    Returns:
        A scalar in nats.

    Example:
        >>> import torch
        >>> from finegrain.losses.color_words import color_words
        >>> color_words(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
        tensor(1.3863)
    """
    total = F.cross_entropy(scores.float(), targets, reduction="sum")
    return total / max(1, len(targets))
