"""Adaptive loss weights of FashionBERT, computed at each step (Gao et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def adaptive_weights(strengths: Tensor) -> Tensor:
    """Compute weights of ``K`` losses; a stronger loss gets a larger weight.

    Source: Gao et al. 2020 (FashionBERT), https://arxiv.org/abs/2005.09801.

    Let ``n`` be the squared softmax of the strengths. The weights are ``w_i = c / (K - n_i)``,
    where ``c`` makes their sum 1. This is the stationary point of
    ``-1/2 sum_i n_i w_i^2 + 1/2 sum_{i<j} (w_i - w_j)^2`` among weights of sum 1. The first term
    favours strong losses, the second term favours equal weights. Each ``n_i`` is between 0 and
    1, so with three losses every weight is between 2/7 and 3/7.

    Args:
        strengths: Strength of each loss, ``[K]``. The paper uses :func:`gradient_norms`. Its
            released code uses the values of the losses, and the gradient then also flows
            through the weights.

    Returns:
        Weights, ``[K]``.

    Example:
        >>> import torch
        >>> from finegrain.losses import adaptive_weights
        >>> adaptive_weights(torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.3137, 0.3193, 0.3670])
    """
    count = len(strengths)
    if count == 1:  # the formula would divide zero by zero
        return torch.ones_like(strengths)
    inverse = 1 / (count - strengths.softmax(dim=0).square())
    return inverse / inverse.sum()


def gradient_norms(losses: Sequence[Tensor], shared: Iterable[Tensor]) -> Tensor:
    """Compute the Euclidean norm of the gradient of each loss by the shared parameters.

    Args:
        losses: ``K`` scalars; their graphs are kept.
        shared: Parameters; every loss must depend on each of them.

    Returns:
        Norms without gradient, ``[K]``.

    Example:
        >>> import torch
        >>> from finegrain.losses import gradient_norms
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> gradient_norms([w.sum(), w.square().sum() / 2], [w])
        tensor([1.4142, 5.0000])
    """
    parameters = tuple(shared)
    gradients = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses)
    return torch.stack([torch.stack([g.norm() for g in each]).norm() for each in gradients])
