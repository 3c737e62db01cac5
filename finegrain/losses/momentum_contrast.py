"""Contrastive loss against a momentum model's features, of this batch and of past ones."""

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
    """Cross-entropy to soft targets, in all four directions (Bai et al. 2023, RaSa, section 3.1).

    Pictures and captions each look for pictures and for captions among the keys. The targets
    are, to a share ``softness``, the softmax of what the momentum model finds for the same
    query, and otherwise uniform over the keys of the query's person.

    Args:
        queries: Of the model, ``N`` rows.
        guesses: The momentum model's features of the same pictures and captions, ``N`` rows.
        keys: The momentum model's features to be found among, ``M`` rows.
        same: 1 where a query and a key are of one person, ``[N, M]``, and at least once a row.
        logit_scale: Inverse temperature, a scalar; it gets a gradient from the queries alone.
        softness: 0 to 1, a scalar.

    Returns:
        A scalar in nats, the mean over directions and queries.
    """
    right = same / same.sum(dim=1, keepdim=True)
    losses = []
    # Logits in fp32, which autocast would undo: a bf16 logit of 100 is off by a quarter nat.
    with torch.autocast(right.device.type, enabled=False):
        for query, guess in zip(queries, guesses, strict=True):
            for key in keys:
                with torch.no_grad():
                    guessed = (logit_scale * (guess @ key.T)).softmax(dim=1)
                    targets = softness * guessed + (1 - softness) * right
                losses.append(F.cross_entropy(logit_scale * (query @ key.T), targets))
    return torch.stack(losses).mean()
