"""Which words of a caption a generator put in place of others."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def replaced_words(logits: Tensor, is_replaced: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of whether a word is another than was written.

    Clark et al. 2020 (ELECTRA), equation 3 without its factor, as Bai et al. 2023 (RaSa) take
    it in section 3.3: the momentum model is the generator.

    Args:
        logits: ``[N, L, 2]``, own words first.
        is_replaced: Bool ``[N, L]``.
        known: Which words count, bool ``[N, L]``.

    Returns:
        A scalar in nats, the mean over words that count; 0 where none does.
    """
    count = known.sum().clamp(min=1)
    return F.cross_entropy(logits[known], is_replaced[known].long(), reduction="sum") / count
