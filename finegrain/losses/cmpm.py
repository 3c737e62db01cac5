"""Cross-modal projection matching."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.divergence import reverse_kl
from finegrain.losses.pairs import pair_up


def cmpm(images: Tensor, texts: Tensor, pids: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Match projections to identities (Zhang and Lu 2018, equations 4 to 7).

    The features are projected, at their own length, onto the *directions* of the other side:
    ``p`` is the softmax of ``x_i . y_j / |y_j|``. As in the code that the field shares, ``q``
    divides the indicator of same identities by its L2 norm and not by its sum, so that ``n``
    right answers weigh ``1 / sqrt(n)`` each.

    Args:
        images: Image features before normalisation, ``[N, D]``.
        texts: Text features before normalisation, ``[K * N, D]``; ``K`` rows in turn describe
            a picture.
        pids: Identities of the pictures, ``[N]``.

    Returns:
        A scalar in nats: the mean over rows, both directions added.
    """
    one = torch.ones((), device=images.device)
    onto_texts, _ = pair_up(images, F.normalize(texts, dim=1), pids, one)
    _, onto_images = pair_up(F.normalize(images, dim=1), texts, pids, one)
    return reverse_kl(
        onto_texts.logits, F.normalize(onto_texts.same, dim=1), epsilon=epsilon
    ) + reverse_kl(onto_images.logits, F.normalize(onto_images.same, dim=1), epsilon=epsilon)
