"""Image-text contrastive loss whose targets are softened by the model's own guesses."""

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
    """Contrastive loss with normalised and softened labels (Cao et al. 2024, N-ITC).

    :func:`~finegrain.losses.itc` whose targets are, to a share ``softness``, what a teacher
    thinks: the softmax of its scaled similarities, without gradient.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.
        guessed: The teacher's embeddings of the same pictures and captions.
        pids: Identities of the pictures, ``[N]``.
        logit_scale: Inverse temperature, a scalar.
        softness: Share of the teacher in the targets, 0 to 1, a scalar.

    Returns:
        A scalar in nats, the mean of both directions; over processes as
        :func:`~finegrain.losses.itc`.
    """
    with torch.no_grad():
        guesses = pair_up(*guessed, pids, logit_scale)
    directions = pair_up(images, texts, pids, logit_scale)
    of_images, of_texts = (
        F.cross_entropy(
            direction.logits,
            softness * guess.logits.softmax(dim=1) + (1 - softness) * direction.targets,
        )
        for direction, guess in zip(directions, guesses, strict=True)
    )
    return (of_images + of_texts) / 2
