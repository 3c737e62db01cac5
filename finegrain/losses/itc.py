"""Image-text contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.gather import gather


def itc(images: Tensor, texts: Tensor, pids: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric contrastive loss between pictures and captions of one batch.

    With every pid once this is InfoNCE of CLIP (Radford et al. 2021, figure 3): the mean
    of the two cross-entropies whose targets are the diagonal. A pid that occurs several
    times makes several right answers; its row's target is then uniform over them, so that
    another picture of the same person is never pushed away.

    Args:
        images: L2-normalised image embeddings ``[N, D]``.
        texts: L2-normalised text embeddings ``[N, D]``; row ``i`` describes picture ``i``.
        pids: Identities ``[N]``.
        logit_scale: Inverse temperature, a scalar.

    Returns:
        A scalar in nats. In several processes the columns are everybody's rows, and the
        mean over processes equals the loss of the whole batch in one process.
    """
    all_images, all_texts, all_pids = gather(images), gather(texts), gather(pids)
    targets = (pids[:, None] == all_pids[None, :]).float()
    targets = targets / targets.sum(dim=1, keepdim=True)
    # Logits in fp32, which autocast would undo: a bf16 logit of 100 is off by up to a
    # quarter of a nat.
    with torch.autocast(images.device.type, enabled=False):
        image_logits = logit_scale * (images.float() @ all_texts.float().T)
        text_logits = logit_scale * (texts.float() @ all_images.float().T)
    return (F.cross_entropy(image_logits, targets) + F.cross_entropy(text_logits, targets)) / 2
