"""Image-text contrastive loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.pairs import pair_up


def itc(images: Tensor, texts: Tensor, pids: Tensor | None, logit_scale: Tensor) -> Tensor:
    """Symmetric contrastive loss between the pictures and captions of a batch.

    If every pid is unique, or if ``pids`` is None, this is the InfoNCE loss of CLIP (Radford et
    al. 2021, figure 3, https://arxiv.org/abs/2103.00020): the mean of two cross-entropies whose
    targets are the diagonal. If a pid occurs several times, a row has several correct answers
    and its target is uniform over them. Another picture of the same person is therefore never
    pushed away.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.
        pids: Identities of the pictures, ``[N]``. None gives each picture its own identity.
        logit_scale: Inverse temperature, a scalar.

    Returns:
        A scalar in nats. With several processes, each compares its rows with the rows of all
        processes; the mean over processes equals the loss of the whole batch in one process.

    Example:
        >>> import torch
        >>> from finegrain.losses import itc
        >>> x = torch.eye(2)
        >>> itc(x, x, torch.tensor([0, 1]), logit_scale=torch.tensor(1.0))
        tensor(0.3133)
    """
    to_texts, to_images = pair_up(images, texts, pids, logit_scale)
    return (
        F.cross_entropy(to_texts.logits, to_texts.targets)
        + F.cross_entropy(to_images.logits, to_images.targets)
    ) / 2
