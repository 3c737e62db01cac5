"""Masked-word loss whose targets are softened by a momentum model's guesses."""

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
    """Cross-entropy of hidden words, and to a share ``softness`` to a momentum model's guesses.

    Li et al. 2021 (ALBEF), equation 7, in the form of Bai et al. 2023 (RaSa), section 3.3.

    Args:
        logits: ``[N, L, V]``.
        guesses: The momentum model's probabilities, ``[N, L, V]``.
        targets: The words that stood there, ``[N, L]``.
        hidden: Which of them were hidden, bool ``[N, L]``.
        softness: 0 to 1, a scalar.
        axis: What the distilled part takes the log-softmax over. ``vocabulary`` is the
            formula's. ``sequence`` is what RaSa's code does, which makes the term depend on
            the length that captions are padded to; published numbers were trained so.

    Returns:
        A scalar in nats, the mean over hidden words; 0 where there is none.
    """
    # Rows of tens of thousands of words are dear to copy, and dearer to put back.
    rows = slice(None) if bool(hidden.all()) else hidden
    log_p = logits[rows].flatten(0, -2).log_softmax(dim=-1)
    told = F.nll_loss(log_p, targets[rows].flatten().long(), reduction="sum")
    if axis == "sequence":
        log_p = logits.log_softmax(dim=1)[rows].flatten(0, -2)
    guessed = -(log_p * guesses[rows].flatten(0, -2)).sum()
    return ((1 - softness) * told + softness * guessed) / hidden.sum().clamp(min=1)
