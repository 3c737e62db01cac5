"""Similarity distribution matching loss."""

from __future__ import annotations

from torch import Tensor

from finegrain.losses.divergence import reverse_kl
from finegrain.losses.pairs import pair_up


def sdm(
    images: Tensor, texts: Tensor, pids: Tensor, logit_scale: Tensor, *, epsilon: float = 1e-8
) -> Tensor:
    """Match the distribution of similarities to that of identities (IRRA).

    Source: Jiang and Ye 2023, equations 5 and 6, https://arxiv.org/abs/2303.12501.

    Let ``p`` be the softmax of a row of scaled cosines, and ``q`` the uniform distribution over
    the correct answers of the row. The loss of the row is ``KL(p || q)``; see
    :func:`~finegrain.losses.divergence.reverse_kl`. Each direction is averaged over rows, and
    both directions are *added*.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.
        pids: Identities of the pictures, ``[N]``.
        logit_scale: Inverse temperature, a scalar; IRRA uses the constant 1 / 0.02.
        epsilon: Added to ``q`` inside the logarithm.

    Returns:
        A scalar in nats. Several processes are treated as in :func:`~finegrain.losses.itc`.

    Example:
        >>> import torch
        >>> from finegrain.losses import sdm
        >>> x = torch.eye(2)
        >>> sdm(x, x, torch.tensor([0, 1]), logit_scale=torch.tensor(1.0))
        tensor(8.7438)
    """
    to_texts, to_images = pair_up(images, texts, pids, logit_scale)
    return reverse_kl(to_texts.logits, to_texts.targets, epsilon=epsilon) + reverse_kl(
        to_images.logits, to_images.targets, epsilon=epsilon
    )
