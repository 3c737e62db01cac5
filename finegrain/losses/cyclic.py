"""Cyclic consistency of similarities."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.losses.gather import gather


def cyclic(images: Tensor, texts: Tensor) -> Tensor:
    """Likenesses that are the same wherever they are taken (Goel et al. 2022, CyCLIP).

    Two pictures shall be as alike as their captions, and picture ``i`` as like caption ``j``
    as picture ``j`` is like caption ``i``. Each counts for a quarter, as in C-ITC of
    TBPS-CLIP (Cao et al. 2024).

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.

    Returns:
        Mean of squared differences of cosines over all pairs of all processes, a scalar.
    """
    images = gather(images.repeat_interleave(len(texts) // len(images), dim=0))
    texts = gather(texts)
    with torch.autocast(images.device.type, enabled=False):
        within = images @ images.T - texts @ texts.T
        across = images @ texts.T
        return (within.square().mean() + (across - across.T).square().mean()) / 4
