"""Contrastive loss of a caption and the same caption with two words exchanged."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def exchanged(
    images: Tensor, texts: Tensor, negatives: Tensor, exists: Tensor, *, temperature: float
) -> Tensor:
    """Cross-entropy of the choice between a caption and its exchanged version.

    Let ``s`` be the cosine of a picture and its caption, ``r`` the cosine of the picture and the
    exchanged caption, and ``t`` the temperature. The loss is ``log(1 + exp((r - s) / t))``.
    Yuksekgonul et al. 2023 (NegCLIP, section 4, https://arxiv.org/abs/2210.01936) add such
    captions to the negatives of the whole batch. Here a picture sees its own one only, which is
    usually its hardest.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.
        negatives: L2-normalised embeddings of the exchanged captions, ``[K * N, D]``.
        exists: True for captions with two words to exchange, bool ``[K * N]``.
        temperature: Divisor of the cosines.

    Returns:
        A scalar in nats, the mean over captions where ``exists`` is true; 0 if there are none.

    Example:
        >>> import torch
        >>> from finegrain.losses import exchanged
        >>> x = torch.eye(2)
        >>> exchanged(x, x, x.flip(0), torch.tensor([True, True]), temperature=1.0)
        tensor(0.3133)
    """
    pictures = images.repeat_interleave(len(texts) // len(images), dim=0)
    advantage = ((negatives - texts).float() * pictures.float()).sum(dim=1) / temperature
    return (F.softplus(advantage) * exists).sum() / exists.sum().clamp(min=1)
