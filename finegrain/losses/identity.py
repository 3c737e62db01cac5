"""Identity classification loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def identity(image_logits: Tensor, text_logits: Tensor, labels: Tensor) -> Tensor:
    """Classify the identity from the picture and from the caption (Zheng et al. 2020).

    Source: the instance loss of "Dual-Path Convolutional Image-Text Embeddings with Instance
    Loss", https://arxiv.org/abs/1711.05535. Both modalities share one classifier, which pulls
    them to the same prototypes.

    Args:
        image_logits: ``[N, C]``.
        text_logits: ``[K * N, C]``; ``K`` consecutive rows describe each picture.
        labels: Identities of the pictures, numbered from 0, ``[N]``.

    Returns:
        A scalar in nats, the mean of the two cross-entropies.

    Example:
        >>> import torch
        >>> from finegrain.losses import identity
        >>> identity(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0, 1]))
        tensor(1.3863)
    """
    text_labels = labels.repeat_interleave(len(text_logits) // len(image_logits))
    images = F.cross_entropy(image_logits.float(), labels)
    return (images + F.cross_entropy(text_logits.float(), text_labels)) / 2
