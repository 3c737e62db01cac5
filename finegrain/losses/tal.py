"""Triplet alignment loss."""

from __future__ import annotations

import torch
from torch import Tensor

from finegrain.losses.pairs import Direction, pair_up


def tal(
    images: Tensor, texts: Tensor, pids: Tensor, *, temperature: float, margin: float
) -> Tensor:
    """Rank right answers over all wrong ones of the batch (Qin et al. 2024, RDE, section 3.4).

    Of a query, with ``s`` the cosines to its answers and ``t`` the temperature, it is

        ``max(0, margin - sum_right a s + t log sum_wrong exp(s / t))``

    where ``a`` is the softmax of ``s / t`` over the right answers, held constant. The
    log-sum-exp is never below the hardest wrong answer, which alone the usual triplet loss
    looks at, and comes near it as ``t`` goes to 0.

    The released code also cuts the sum off at 1e36, lest it overflow; the sum is taken here
    in a way that cannot, and at the paper's temperature never comes near.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.
        pids: Identities of the pictures, ``[N]``.
        temperature: ``t``; the paper's is 0.015.
        margin: In cosines; the paper's is 0.1.

    Returns:
        Losses of the pictures with their captions, ``[N]``, both directions added. The paper
        *sums* them over the batch, each times the trust in its pair. In several processes
        the answers are everybody's.
    """
    scale = torch.tensor(1 / temperature, device=images.device, dtype=torch.float64)
    to_texts, to_images = pair_up(images, texts, pids, scale)
    of_pictures = _ranking(to_texts, temperature=temperature, margin=margin)
    of_captions = _ranking(to_images, temperature=temperature, margin=margin)
    return of_pictures + of_captions.view(len(images), -1).sum(dim=1)


def _ranking(direction: Direction, *, temperature: float, margin: float) -> Tensor:
    """Losses of the queries, ``[Q]``."""
    logits, right = direction.logits, direction.same.bool()
    # Not minus infinity: a query without wrong answers would have no gradient but NaN.
    least = torch.finfo(logits.dtype).min
    attraction = logits.detach().masked_fill(~right, least).softmax(dim=1)
    pulled = (attraction * logits).sum(dim=1)
    pushed = logits.masked_fill(right, least).logsumexp(dim=1)
    return (margin + temperature * (pushed - pulled)).relu()
