"""A caption against itself with two words exchanged."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def exchanged(
    images: Tensor, texts: Tensor, negatives: Tensor, exists: Tensor, *, temperature: float
) -> Tensor:
    """Tell what a caption says from what it would say with two words exchanged.

    Of a picture, with ``s`` and ``r`` its cosines to its caption and to the exchanged one and
    ``t`` the temperature, it is ``log(1 + exp((r - s) / t))``: the cross-entropy of the choice
    between the two. Yuksekgonul et al. 2023 (NegCLIP, section 4) put such captions among the
    wrong answers of a whole batch, where each is the hardest for its own picture anyway.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.
        negatives: Those of the exchanged captions, ``[K * N, D]``.
        exists: Which captions had two words to exchange, bool ``[K * N]``.
        temperature: As cosines are.

    Returns:
        A scalar in nats, the mean over the captions that had; 0 where none had.
    """
    pictures = images.repeat_interleave(len(texts) // len(images), dim=0)
    advantage = ((negatives - texts).float() * pictures.float()).sum(dim=1) / temperature
    return (F.softplus(advantage) * exists).sum() / exists.sum().clamp(min=1)
