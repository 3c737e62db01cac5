"""Triplet alignment loss."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.losses.pairs import Direction, pair_up


def tal(
    images: Tensor, texts: Tensor, pids: Tensor, *, temperature: float, margin: float
) -> Tensor:
    """Rank correct answers above all wrong answers of the batch (RDE).

    Source: Qin et al. 2024, section 3.4, https://arxiv.org/abs/2308.09911.

    Let ``s`` be the cosines of a query to its answers and ``t`` the temperature. The loss is

        ``max(0, margin - sum_right a s + t log sum_wrong exp(s / t))``

    where ``a`` is the softmax of ``s / t`` over the correct answers, without gradient. The usual
    triplet loss uses the hardest wrong answer only. The log-sum-exp is an upper bound of it, and
    approaches it as ``t`` goes to 0.

    The released code limits the sum to 1e36 to avoid an overflow. The log-sum-exp here cannot
    overflow, and with the paper's temperature the sum never reaches that limit.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` consecutive rows describe
            each picture.
        pids: Identities of the pictures, ``[N]``.
        temperature: ``t``; the paper uses 0.015.
        margin: Margin in cosines; the paper uses 0.1.

    Returns:
        Losses of the pictures with their captions, ``[N]``, both directions added. The paper
        multiplies each by the trust in its pair and *sums* over the batch. With several
        processes, the answers are those of all processes.

    Example:
        >>> import torch
        >>> from finegrain.losses import tal
        >>> x, pids = torch.eye(2), torch.tensor([0, 1])
        >>> tal(x, x.flip(0), pids, temperature=0.015, margin=0.1)
        tensor([2.2000, 2.2000])
    """
    scale = torch.tensor(1 / temperature, device=images.device, dtype=torch.float64)
    to_texts, to_images = pair_up(images, texts, pids, scale)
    image_losses = _ranking(to_texts, temperature=temperature, margin=margin)
    text_losses = _ranking(to_images, temperature=temperature, margin=margin)
    return image_losses + text_losses.view(len(images), -1).sum(dim=1)


def _ranking(direction: Direction, *, temperature: float, margin: float) -> Tensor:
    """Losses of the queries, ``[Q]``."""
    logits, right = direction.logits, direction.same.bool()
    # With minus infinity, the gradient of a query without wrong answers would be NaN.
    least = torch.finfo(logits.dtype).min
    attraction = logits.detach().masked_fill(~right, least).softmax(dim=1)
    pulled = (attraction * logits).sum(dim=1)
    pushed = logits.masked_fill(right, least).logsumexp(dim=1)
    return (margin + temperature * (pushed - pulled)).relu()
