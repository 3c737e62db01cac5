"""The divergence that SDM and CMPM share."""

from __future__ import annotations

from torch import Tensor


def reverse_kl(logits: Tensor, targets: Tensor, *, epsilon: float) -> Tensor:
    """``mean_i sum_j p_ij log(p_ij / (q_ij + epsilon))`` with ``p`` the softmax of a row.

    The prediction comes first: probability on a wrong answer costs up to ``-log(epsilon)``
    times itself, and a right answer that is missed costs little.

    Args:
        logits: ``[N, M]``.
        targets: ``q``, ``[N, M]``.
    """
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - (targets + epsilon).log())).sum(dim=1).mean()
