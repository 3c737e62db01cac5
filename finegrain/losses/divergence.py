"""The Kullback-Leibler divergence that SDM and CMPM share."""

from __future__ import annotations

from torch import Tensor


def reverse_kl(logits: Tensor, targets: Tensor, *, epsilon: float) -> Tensor:
    """``mean_i sum_j p_ij log(p_ij / (q_ij + epsilon))``, where ``p`` is the softmax of a row.

    The prediction ``p`` is the first argument of the divergence. A probability ``p_ij`` on a
    wrong answer therefore costs up to ``-p_ij log(epsilon)``, while a correct answer with a low
    probability costs little.

    Args:
        logits: ``[N, M]``.
        targets: Target distribution ``q``, ``[N, M]``.
        epsilon: Added to ``q`` inside the logarithm.

    Returns:
        A scalar in nats.
    """
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - (targets + epsilon).log())).sum(dim=1).mean()
