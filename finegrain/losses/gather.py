"""Embeddings of all processes, with gradients that reach each of them."""

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
        # Every process computes its own rows of the loss from everybody's embeddings, so
        # what flows back to this process is the sum over processes of its slice.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """``[N, ...] -> [world * N, ...]``, in rank order; ``x`` itself in a single process.

    Each process must hold the same ``N``. Floating tensors carry gradients.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    gathered: Tensor = _AllGather.apply(x)
    return gathered
