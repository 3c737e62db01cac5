"""Contrastive loss against a momentum model's features of this batch and of earlier ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Pair(NamedTuple):
    """L2-normalised features of pictures and of captions, ``[R, D]`` each."""

    images: Tensor
    texts: Tensor


def momentum_contrast(
    queries: Pair,
    guesses: Pair,
    keys: Pair,
    same: Tensor,
    logit_scale: Tensor,
    *,
    softness: Tensor,
) -> Tensor:
    """Cross-entropy to soft targets in four directions (``cl`` of RaSa).

    Source: Bai et al. 2023, section 3.1, https://arxiv.org/abs/2305.13653.

    Pictures and captions are each compared with the pictures and with the captions of the keys.
    The targets mix two distributions: the softmax of the momentum model's similarities for the
    same query, with the weight ``softness``, and the uniform distribution over the keys of the
    query's person, with the weight ``1 - softness``.

    Args:
        queries: Features of the model, ``N`` rows.
        guesses: The momentum model's features of the same pictures and captions, ``N`` rows.
        keys: The momentum model's features that queries are compared with, ``M`` rows.
        same: 1 where a query and a key have the same identity, else 0, ``[N, M]``. Each row
            needs at least one 1.
        logit_scale: Inverse temperature, a scalar. Its gradient comes from ``queries`` only.
        softness: Weight of the momentum model in the targets, 0 to 1, a scalar.

    Returns:
        A scalar in nats, the mean over directions and queries.

    Example:
        >>> import torch
        >>> from finegrain.losses import momentum_contrast
        >>> from finegrain.losses.momentum_contrast import Pair
        >>> x = Pair(torch.eye(2), torch.eye(2))
        >>> scale, softness = torch.tensor(1.0), torch.tensor(0.4)
        >>> momentum_contrast(x, x, x, torch.eye(2), scale, softness=softness)
        tensor(0.4208)
    """
    right = same / same.sum(dim=1, keepdim=True)
    losses = []
    # Autocast is off: a logit of 100 in bf16 would be wrong by up to a quarter of a nat.
    with torch.autocast(right.device.type, enabled=False):
        for query, guess in zip(queries, guesses, strict=True):
            for key in keys:
                with torch.no_grad():
                    guessed = (logit_scale * (guess @ key.T)).softmax(dim=1)
                    targets = softness * guessed + (1 - softness) * right
                losses.append(F.cross_entropy(logit_scale * (query @ key.T), targets))
    return torch.stack(losses).mean()
