"""Wrong answers that are easily taken for right ones."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_rivals(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Draw of each query one wrong answer, the likelier the nearer it is.

    The probability is the softmax of the logits over the wrong answers, as in ALBEF (Li et
    al. 2021, section 3.2). It is drawn by the largest logit after Gumbel noise, which needs no
    probability to be above 0.

    Args:
        logits: Scaled similarities, ``[Q, A]``.
        same: Which answers are of the query's person, bool ``[Q, A]``.

    Returns:
        Rows of the answers, ``[Q]``, and which queries have a wrong answer at all, bool
        ``[Q]``; elsewhere the row means nothing.
    """
    gumbel = -torch.empty_like(logits).exponential_().log()
    drawn = (logits + gumbel).masked_fill(same, -torch.inf).argmax(dim=1)
    return drawn, ~same.all(dim=1)
