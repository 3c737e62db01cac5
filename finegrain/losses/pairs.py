"""What every contrastive loss starts from: scaled similarities, and who belongs to whom."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from finegrain.losses.gather import gather


class Direction(NamedTuple):
    """Pictures that look for captions, or captions that look for pictures.

    Attributes:
        logits: Scaled similarities of this process's queries to everybody's answers, in
            fp32, ``[Q, A]``.
        same: 1 where a query and an answer are of one person, ``[Q, A]``.
    """

    logits: Tensor
    same: Tensor

    @property
    def targets(self) -> Tensor:
        """``same`` with rows that sum to 1: every right answer is as right, ``[Q, A]``."""
        return self.same / self.same.sum(dim=1, keepdim=True)


def pair_up(
    images: Tensor, texts: Tensor, pids: Tensor | None, logit_scale: Tensor
) -> tuple[Direction, Direction]:
    """Compare the rows of a batch with those of all processes: image to text, text to image.

    Args:
        images: Embeddings ``[N, D]``.
        texts: Embeddings ``[K * N, D]``; rows ``i * K`` to ``i * K + K - 1`` describe picture
            ``i``. Mostly ``K`` is 1.
        pids: Identities of the pictures, ``[N]``; None makes each an identity of its own.
        logit_scale: Inverse temperature, a scalar.
    """
    if pids is None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        pids = torch.arange(len(images), device=images.device) + rank * len(images)
    text_pids = pids.repeat_interleave(len(texts) // len(images))
    all_images, all_texts = gather(images), gather(texts)
    # Logits in fp32, which autocast would undo: a bf16 logit of 100 is off by up to a
    # quarter of a nat.
    with torch.autocast(images.device.type, enabled=False):
        image_logits = logit_scale * (_wide(images) @ _wide(all_texts).T)
        text_logits = logit_scale * (_wide(texts) @ _wide(all_images).T)
    return (
        Direction(image_logits, (pids[:, None] == gather(text_pids)).to(image_logits.dtype)),
        Direction(text_logits, (text_pids[:, None] == gather(pids)).to(text_logits.dtype)),
    )


def _wide(x: Tensor) -> Tensor:
    """At least fp32; a test in fp64 stays in it."""
    return x if x.dtype == torch.float64 else x.float()
