"""Masked patch modelling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_patches(predictions: Tensor, features: Tensor) -> Tensor:
    """Tell what a hidden patch looks like (Gao et al. 2020, FashionBERT, MPM).

    Features are taken for logits: ``KL(softmax(features) || softmax(predictions))``. Nothing
    flows into the features, or a trained patch encoder would make them all alike.

    Args:
        predictions: For each hidden patch, ``[M, F]``.
        features: What was hidden, ``[M, F]``.

    Returns:
        A scalar in nats, the mean over the hidden patches.
    """
    guessed = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    hidden = features.detach().to(guessed.dtype)
    return F.kl_div(
        guessed.log_softmax(dim=1),
        hidden.log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
