"""The common input of contrastive losses: scaled similarities and matching identities."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from finegrain.losses.gather import gather


class Direction(NamedTuple):
    """One direction of a comparison: image to text, or text to image.

    Attributes:
        logits: Scaled similarities of the queries of this process to the answers of all
            processes, in fp32, ``[Q, A]``.
        same: 1 where a query and an answer have the same identity, else 0, ``[Q, A]``.
    """

    logits: Tensor
    same: Tensor

    @property
    def targets(self) -> Tensor:
        """Uniform distribution of each row over its correct answers, ``[Q, A]``."""
        return self.same / self.same.sum(dim=1, keepdim=True)


def pair_up(
    images: Tensor, texts: Tensor, pids: Tensor | None, logit_scale: Tensor
) -> tuple[Direction, Direction]:
    """Compare the rows of a batch with those of all processes, in both directions.

    Args:
        images: Embeddings ``[N, D]``.
        texts: Embeddings ``[K * N, D]``; rows ``i * K`` to ``i * K + K - 1`` describe picture
            ``i``. ``K`` is usually 1.
        pids: Identities of the pictures, ``[N]``. None gives each picture its own identity.
        logit_scale: Inverse temperature, a scalar.

    Returns:
        Image to text, and text to image.
    """
    if pids is None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        pids = torch.arange(len(images), device=images.device) + rank * len(images)
    text_pids = pids.repeat_interleave(len(texts) // len(images))
    all_images, all_texts = gather(images), gather(texts)
    # Autocast is off: a logit of 100 in bf16 would be wrong by up to a quarter of a nat.
    with torch.autocast(images.device.type, enabled=False):
        image_logits = logit_scale * (_wide(images) @ _wide(all_texts).T)
        text_logits = logit_scale * (_wide(texts) @ _wide(all_images).T)
    return (
        Direction(image_logits, (pids[:, None] == gather(text_pids)).to(image_logits.dtype)),
        Direction(text_logits, (text_pids[:, None] == gather(pids)).to(text_logits.dtype)),
    )


def _wide(x: Tensor) -> Tensor:
    """Convert to fp32; fp64, which tests use, stays as it is."""
    return x if x.dtype == torch.float64 else x.float()
