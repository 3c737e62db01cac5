"""Image-text contrastive loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.pairs import pair_up


def itc(images: Tensor, texts: Tensor, pids: Tensor | None, logit_scale: Tensor) -> Tensor:
    """Symmetric contrastive loss between pictures and captions of one batch.

    With every pid once, or with none given, this is InfoNCE of CLIP (Radford et al. 2021,
    figure 3): the mean of the two cross-entropies whose targets are the diagonal. A pid that
    occurs several times makes several right answers; its row's target is then uniform over
    them, so that another picture of the same person is never pushed away.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[K * N, D]``; ``K`` rows in turn describe a
            picture.
        pids: Identities of the pictures, ``[N]``, or None to tell each from every other.
        logit_scale: Inverse temperature, a scalar.

    Returns:
        A scalar in nats. In several processes the columns are everybody's rows, and the
        mean over processes equals the loss of the whole batch in one process.
    """
    to_texts, to_images = pair_up(images, texts, pids, logit_scale)
    return (
        F.cross_entropy(to_texts.logits, to_texts.targets)
        + F.cross_entropy(to_images.logits, to_images.targets)
    ) / 2
