"""Masked patch modelling loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_patches(predictions: Tensor, features: Tensor) -> Tensor:
    """Predict the features of masked patches (MPM of FashionBERT).

    Source: Gao et al. 2020, https://arxiv.org/abs/2005.09801.

    Features are treated as logits: the loss is ``KL(softmax(features) || softmax(predictions))``.
    No gradient flows into the features. Otherwise a trainable patch encoder would make all
    features equal.

    Args:
        predictions: Predictions for the masked patches, ``[M, F]``.
        features: Original features of these patches, ``[M, F]``.

    Returns:
        A scalar in nats, the mean over the masked patches.

    Example:
        >>> import torch
        >>> from finegrain.losses import masked_patches
        >>> masked_patches(torch.zeros(2, 2), torch.eye(2))
        tensor(0.1109)
    """
    predicted = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    targets = features.detach().to(predicted.dtype)
    return F.kl_div(
        predicted.log_softmax(dim=1),
        targets.log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
