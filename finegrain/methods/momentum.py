"""What a method remembers from step to step: a slow copy of modules, and past features."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.losses.gather import gather

EMPTY = -100
"""The identity of a row of a queue that nothing was written to yet; identities are not below 0."""

M = TypeVar("M", bound=nn.Module)


class MomentumCopy(nn.Module, Generic[M]):
    """An exponential moving copy of a module, ``module``, which has no gradients.

    He et al. 2020 (MoCo), equation 2: after each step ``copy = d copy + (1 - d) original``.
    Buffers, such as the statistics of a batch normalisation, are taken over as they are.

    A method calls :meth:`restart` at the start of its first epoch, since pretrained weights
    come after it was built, and :meth:`update` after each step. Equal weights in several
    processes stay equal.

    Args:
        original: Copied as it is now, and not kept: its weights would be saved twice.
        decay: ``d``.
    """

    def __init__(self, original: M, *, decay: float = 0.995) -> None:
        super().__init__()
        self.decay = decay
        self.module: M = copy.deepcopy(original).requires_grad_(False)

    def restart(self, original: nn.Module) -> None:
        """Be equal to the original; like :meth:`update` otherwise."""
        self._blend(original, share=1.0)

    def update(self, original: nn.Module) -> None:
        """Take a small step towards the original.

        Args:
            original: Holds under the names of the copy's parameters and buffers what they
                follow; it may hold more, so that a method passes itself for a copy of parts.
        """
        self._blend(original, share=1 - self.decay)

    @torch.no_grad()
    def _blend(self, original: nn.Module, *, share: float) -> None:
        parameters, buffers = dict(original.named_parameters()), dict(original.named_buffers())
        for name, parameter in self.module.named_parameters():
            parameter.lerp_(parameters[name], share)
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])


class FeatureQueue(nn.Module):
    """The last ``size`` features of one kind, with the identities that they are of.

    A forward pass *holds* what is to come in, and :meth:`write`, after the step, writes it
    over the oldest rows: a row that a loss was computed from may not change before the
    gradient was, and of a batch in parts each sees the same queue. With several processes
    everybody's rows are written, in the order of ranks.

    Rows that were never written are random unit vectors of identity :data:`EMPTY`.

    Attributes:
        features: fp32 ``[size, D]``.
        ids: int64 ``[size]``.
        pointer: The row that is written next, int64, a scalar.
    """

    features: Tensor
    ids: Tensor
    pointer: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("features", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("ids", torch.full((size,), EMPTY))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self._held: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def filled(self) -> Tensor:
        """Which rows were written, bool ``[size]``."""
        return self.ids != EMPTY

    def hold(self, features: Tensor, ids: Tensor) -> None:
        """Note features ``[N, D]`` of identities ``[N]`` to be written after the step."""
        self._held.append((features.detach().float(), ids))

    @torch.no_grad()
    def write(self) -> None:
        """Write what is held; of more rows than there is room for, the last ones."""
        if not self._held:
            return
        features, ids = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        self._held.clear()
        features, ids = gather(features), gather(ids)
        place = self.pointer + torch.arange(len(ids), device=ids.device)
        kept = place[-len(self) :] % len(self)
        self.features[kept], self.ids[kept] = features[-len(self) :], ids[-len(self) :]
        self.pointer.copy_((self.pointer + len(ids)) % len(self))
