"""Cross-modal projection matching."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.divergence import reverse_kl
from finegrain.losses.pairs import pair_up


def cmpm(images: Tensor, texts: Tensor, pids: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Cross-modal projection matching (Zhang and Lu, ECCV 2018, equations 4 to 7).

    Source: "Deep Cross-Modal Projection Learning for Image-Text Matching",
    https://openaccess.thecvf.com/content_ECCV_2018/html/Ying_Zhang_Deep_Cross-Modal_Projection_ECCV_2018_paper.html.

    Each feature keeps its own length and is projected onto the *direction* of every feature of
    the other modality: ``p`` is the softmax of ``x_i . y_j / |y_j|``. As in the commonly used
    code, ``q`` is the indicator of equal identities divided by its L2 norm, not by its sum.
    Each of ``n`` correct answers therefore has the weight ``1 / sqrt(n)``.

    Args:
        images: Image features before normalisation, ``[N, D]``.
        texts: Text features before normalisation, ``[K * N, D]``; ``K`` consecutive rows
            describe each picture.
        pids: Identities of the pictures, ``[N]``.
        epsilon: Added to ``q`` inside the logarithm.

    Returns:
        A scalar in nats: the mean over rows, summed over both directions.

    Example:
        >>> import torch
        >>> from finegrain.losses import cmpm
        >>> features = torch.eye(2)
        >>> cmpm(features, features, torch.tensor([0, 1]))
        tensor(8.7438)
    """
    scale = torch.ones((), device=images.device)
    onto_texts, _ = pair_up(images, F.normalize(texts, dim=1), pids, scale)
    _, onto_images = pair_up(F.normalize(images, dim=1), texts, pids, scale)
    return reverse_kl(
        onto_texts.logits, F.normalize(onto_texts.same, dim=1), epsilon=epsilon
    ) + reverse_kl(onto_images.logits, F.normalize(onto_images.same, dim=1), epsilon=epsilon)
