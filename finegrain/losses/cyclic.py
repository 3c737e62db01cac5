"""Cyclic consistency loss of similarities."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.losses.gather import gather


def cyclic(images: Tensor, texts: Tensor) -> Tensor:
    """Cyclic consistency (Goel et al. 2022, CyCLIP, https://arxiv.org/abs/2205.14459).

    The in-modal term makes the similarity of two pictures equal to that of their captions. The
    cross-modal term makes the similarity of picture ``i`` to caption ``j`` equal to that of
    picture ``j`` to caption ``i``. Each term has the weight 1/4, as in C-ITC of TBPS-CLIP (Cao
    et al. 2024, https://arxiv.org/abs/2308.10045).

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.

    Returns:
        Mean squared difference of cosines over all pairs of all processes, a scalar.

    Example:
        >>> import torch
        >>> from finegrain.losses import cyclic
        >>> cyclic(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(0.2500)
    """
    images = gather(images.repeat_interleave(len(texts) // len(images), dim=0))
    texts = gather(texts)
    with torch.autocast(images.device.type, enabled=False):
        within = images @ images.T - texts @ texts.T
        across = images @ texts.T
        return (within.square().mean() + (across - across.T).square().mean()) / 4
