"""What every contrastive loss starts from: scaled similarities, and who belongs to whom."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from finegrain.losses.gather import gather


class Pairs(NamedTuple):
    """Similarities of this process's rows to everybody's, in fp32.

    Attributes:
        images: Logits of pictures over all captions, ``[N, M]``.
        texts: Logits of captions over all pictures, ``[N, M]``.
        same: 1 where a row and a column show one person, ``[N, M]``.
    """

    images: Tensor
    texts: Tensor
    same: Tensor

    @property
    def targets(self) -> Tensor:
        """``same`` with rows that sum to 1: every right answer is as right, ``[N, M]``."""
        return self.same / self.same.sum(dim=1, keepdim=True)


def pair_up(images: Tensor, texts: Tensor, pids: Tensor | None, logit_scale: Tensor) -> Pairs:
    """Compare the rows of a batch with the columns of all processes.

    Args:
        images: Embeddings ``[N, D]``.
        texts: Embeddings ``[N, D]``; row ``i`` describes picture ``i``.
        pids: Identities ``[N]``; None makes every row an identity of its own.
        logit_scale: Inverse temperature, a scalar.
    """
    if pids is None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        pids = torch.arange(len(images), device=images.device) + rank * len(images)
    all_images, all_texts = gather(images), gather(texts)
    # Logits in fp32, which autocast would undo: a bf16 logit of 100 is off by up to a
    # quarter of a nat.
    with torch.autocast(images.device.type, enabled=False):
        return Pairs(
            images=logit_scale * (_wide(images) @ _wide(all_texts).T),
            texts=logit_scale * (_wide(texts) @ _wide(all_images).T),
            same=(pids[:, None] == gather(pids)[None, :]).to(_wide(images).dtype),
        )


def _wide(x: Tensor) -> Tensor:
    """At least fp32; a test in fp64 stays in it."""
    return x if x.dtype == torch.float64 else x.float()
