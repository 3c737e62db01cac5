"""Image-text matching loss: binary classification of pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_matching(matched: Tensor, unmatched: Tensor) -> Tensor:
    """Cross-entropy of matching and non-matching pairs.

    Source: Li et al. 2021 (ALBEF, https://arxiv.org/abs/2107.07651), equation 4. If some of the
    ``matched`` captions describe other pictures of the same person, this is the probabilistic
    matching of Bai et al. 2023 (RaSa, https://arxiv.org/abs/2305.13653), section 3.2.

    Args:
        matched: Logits of matching pairs, ``[N, 2]``. Column 0 is "no match", column 1 "match".
        unmatched: Logits of non-matching pairs, ``[M, 2]``; ``M`` may be 0.

    Returns:
        A scalar in nats, the mean over all pairs.

    Example:
        >>> import torch
        >>> from finegrain.losses import pair_matching
        >>> pair_matching(torch.zeros(2, 2), torch.zeros(2, 2))
        tensor(0.6931)
    """
    logits = torch.cat([matched, unmatched])
    is_match = torch.arange(len(logits), device=logits.device) < len(matched)
    return F.cross_entropy(logits, is_match.long())
