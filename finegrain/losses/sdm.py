"""Similarity distribution matching."""

from __future__ import annotations

from torch import Tensor

from finegrain.losses.divergence import reverse_kl
from finegrain.losses.pairs import pair_up


def sdm(
    images: Tensor, texts: Tensor, pids: Tensor, logit_scale: Tensor, *, epsilon: float = 1e-8
) -> Tensor:
    """Match the distribution of similarities to that of identities (Jiang and Ye 2023, IRRA).

    With ``p`` the softmax of a row's scaled cosines and ``q`` uniform over its right answers,
    the loss of a row is ``KL(p || q)`` (equation 5, see
    :func:`~finegrain.losses.divergence.reverse_kl`). Both directions are averaged over rows
    and *added* (equation 6).

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.
        pids: Identities of the pictures, ``[N]``.
        logit_scale: Inverse temperature, a scalar; IRRA's is fixed at 1 / 0.02.

    Returns:
        A scalar in nats; over processes as :func:`~finegrain.losses.itc`.
    """
    to_texts, to_images = pair_up(images, texts, pids, logit_scale)
    return reverse_kl(to_texts.logits, to_texts.targets, epsilon=epsilon) + reverse_kl(
        to_images.logits, to_images.targets, epsilon=epsilon
    )
