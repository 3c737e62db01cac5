"""Whether a picture and a caption belong together, as two classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_matching(matched: Tensor, unmatched: Tensor) -> Tensor:
    """Cross-entropy of right and wrong pairs (Li et al. 2021, ALBEF, equation 4).

    With ``matched`` partly of other pictures of the person it is the probabilistic matching of
    Bai et al. 2023 (RaSa), section 3.2.

    Args:
        matched: Logits of right pairs, ``[N, 2]``, wrong first.
        unmatched: Logits of wrong pairs, ``[M, 2]``; ``M`` may be 0.

    Returns:
        A scalar in nats, the mean over all pairs.
    """
    logits = torch.cat([matched, unmatched])
    is_match = torch.arange(len(logits), device=logits.device) < len(matched)
    return F.cross_entropy(logits, is_match.long())
