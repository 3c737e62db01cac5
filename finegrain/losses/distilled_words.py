"""Masked-word loss with soft targets from a momentum model."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

DistillAxis = Literal["vocabulary", "sequence"]


def distilled_words(
    logits: Tensor,
    guesses: Tensor,
    targets: Tensor,
    hidden: Tensor,
    *,
    softness: Tensor,
    axis: DistillAxis = "vocabulary",
) -> Tensor:
    """Cross-entropy of masked words, mixed with that to a momentum model's predictions.

    Source: Li et al. 2021 (ALBEF, https://arxiv.org/abs/2107.07651), equation 7, in the form of
    Bai et al. 2023 (RaSa, https://arxiv.org/abs/2305.13653), section 3.3.

    Args:
        logits: Predictions of the model, ``[N, L, V]``.
        guesses: Probabilities of the momentum model, ``[N, L, V]``.
        targets: Ids of the original words, ``[N, L]``.
        hidden: True for masked words, bool ``[N, L]``.
        softness: Weight of the momentum model's predictions, 0 to 1, a scalar. The original
            words have the weight ``1 - softness``.
        axis: Axis of the log-softmax in the distilled term. ``vocabulary`` is the formula of the
            paper. ``sequence`` is what the released code of RaSa computes, and what its
            published results were trained with; this term depends on the padded length.

    Returns:
        A scalar in nats, the mean over masked words; 0 if no word is masked.

    Example:
        >>> import torch
        >>> from finegrain.losses import distilled_words
        >>> distilled_words(
        ...     torch.zeros(1, 2, 4),
        ...     torch.full((1, 2, 4), 0.25),
        ...     torch.tensor([[1, 2]]),
        ...     torch.tensor([[True, False]]),
        ...     softness=torch.tensor(0.4),
        ... )
        tensor(1.3863)
    """
    # A row has tens of thousands of values: copying it, and its gradient, is expensive.
    rows = slice(None) if bool(hidden.all()) else hidden
    log_p = logits[rows].flatten(0, -2).log_softmax(dim=-1)
    hard = F.nll_loss(log_p, targets[rows].flatten().long(), reduction="sum")
    if axis == "sequence":
        log_p = logits.log_softmax(dim=1)[rows].flatten(0, -2)
    soft = -(log_p * guesses[rows].flatten(0, -2)).sum()
    return ((1 - softness) * hard + softness * soft) / hidden.sum().clamp(min=1)
