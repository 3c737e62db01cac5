"""Gathering of embeddings from all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process computes the loss of its own rows from the embeddings of all processes.
        # The gradient of this process is therefore the sum of its slice over all processes.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes: ``[N, ...] -> [world * N, ...]``, in rank order.

    With a single process it returns ``x`` itself. ``N`` must be the same in every process.
    Gradients flow through floating-point tensors.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    gathered: Tensor = _AllGather.apply(x)
    return gathered
