"""Image-text contrastive loss with soft targets from a teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.pairs import pair_up


def soft_itc(
    images: Tensor,
    texts: Tensor,
    guessed: tuple[Tensor, Tensor],
    pids: Tensor,
    logit_scale: Tensor,
    *,
    softness: Tensor,
) -> Tensor:
    """Contrastive loss with normalised and softened labels (N-ITC of TBPS-CLIP).

    Source: Cao et al. 2024, https://arxiv.org/abs/2308.10045.

    This is :func:`~finegrain.losses.itc` with other targets: they are mixed with the softmax of
    a teacher's scaled similarities, which have no gradient.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.
        guessed: The teacher's embeddings of the same pictures and captions.
        pids: Identities of the pictures, ``[N]``.
        logit_scale: Inverse temperature, a scalar.
        softness: Weight of the teacher in the targets, 0 to 1, a scalar.

    Returns:
        A scalar in nats, the mean of both directions. Several processes are treated as in
        :func:`~finegrain.losses.itc`.

    Example:
        >>> import torch
        >>> from finegrain.losses import soft_itc
        >>> x, pids = torch.eye(2), torch.tensor([0, 1])
        >>> soft_itc(x, x, (x, x), pids, torch.tensor(1.0), softness=torch.tensor(0.5))
        tensor(0.4477)
    """
    with torch.no_grad():
        guesses = pair_up(*guessed, pids, logit_scale)
    directions = pair_up(images, texts, pids, logit_scale)
    image_loss, text_loss = (
        F.cross_entropy(
            direction.logits,
            softness * guess.logits.softmax(dim=1) + (1 - softness) * direction.targets,
        )
        for direction, guess in zip(directions, guesses, strict=True)
    )
    return (image_loss + text_loss) / 2
