"""FashionBERT's weights of several losses, found anew at each step (Gao et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def adaptive_weights(strengths: Tensor) -> Tensor:
    """Weights of ``K`` losses that lean to the strongest, and sum to 1.

    With ``n`` the squared softmax of the strengths they are ``w_i = c / (K - n_i)``. That is
    where ``-1/2 sum_i n_i w_i^2 + 1/2 sum_{i<j} (w_i - w_j)^2`` is stationary for weights of
    sum 1: follow what is strong, and treat all alike. Since ``n_i`` is between 0 and 1, of three
    losses none weighs less than 2/7 or more than 3/7.

    Args:
        strengths: ``[K]``. The paper takes :func:`gradient_norms`; its released code the values
            of the losses, and then lets the gradient flow through the weights too.

    Returns:
        ``[K]``.
    """
    count = len(strengths)
    if count == 1:  # where the formula would divide zero by zero
        return torch.ones_like(strengths)
    inverse = 1 / (count - strengths.softmax(dim=0).square())
    return inverse / inverse.sum()


def gradient_norms(losses: Sequence[Tensor], shared: Iterable[Tensor]) -> Tensor:
    """Euclidean length of each loss's gradient by the parameters that all losses share.

    Args:
        losses: ``K`` scalars; their graphs are kept.
        shared: Parameters, each of which every loss depends on.

    Returns:
        ``[K]``, without gradient.
    """
    parameters = tuple(shared)
    found = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses)
    return torch.stack([torch.stack([g.norm() for g in each]).norm() for each in found])
