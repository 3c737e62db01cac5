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
        texts: L2-normalised text embeddings ``[N, D]``; row ``i`` describes picture ``i``.
        pids: Identities ``[N]``, or None to tell every row from every other.
        logit_scale: Inverse temperature, a scalar.

    Returns:
        A scalar in nats. In several processes the columns are everybody's rows, and the
        mean over processes equals the loss of the whole batch in one process.
    """
    pairs = pair_up(images, texts, pids, logit_scale)
    targets = pairs.targets
    return (F.cross_entropy(pairs.images, targets) + F.cross_entropy(pairs.texts, targets)) / 2
