"""Identity classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def identity(image_logits: Tensor, text_logits: Tensor, labels: Tensor) -> Tensor:
    """Tell the person from the picture, and from the caption (Zheng et al. 2020).

    One classifier serves both sides, which pulls them to the same prototypes.

    Args:
        image_logits: ``[N, C]``.
        text_logits: ``[K * N, C]``; ``K`` rows in turn are of captions of one picture.
        labels: Numbers of the identities of the pictures, ``[N]``, from 0.

    Returns:
        The mean of the two cross-entropies, in nats.
    """
    text_labels = labels.repeat_interleave(len(text_logits) // len(image_logits))
    images = F.cross_entropy(image_logits.float(), labels)
    return (images + F.cross_entropy(text_logits.float(), text_labels)) / 2
