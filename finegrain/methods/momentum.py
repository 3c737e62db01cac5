"""State that a method keeps between steps: momentum copies and queues of features.

Source: He et al. 2020 (MoCo), https://arxiv.org/abs/1911.05722.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.losses.gather import gather

EMPTY = -100
"""Identity of a queue row that was never written; real identities are 0 or more."""

M = TypeVar("M", bound=nn.Module)


class MomentumCopy(nn.Module, Generic[M]):
    """An exponential moving average of a module, without gradients.

    After each step, ``copy = d copy + (1 - d) original`` (He et al. 2020, equation 2). Buffers,
    such as the statistics of a batch normalisation, are copied without averaging.

    A method calls :meth:`restart` at the start of its first epoch, since pretrained weights are
    loaded after it was built, and :meth:`update` after each step. Copies that are equal in
    several processes stay equal.

    Args:
        original: The module to copy. It is not kept, or its weights would be saved twice.
        decay: ``d``.
    """

    def __init__(self, original: M, *, decay: float = 0.995) -> None:
        super().__init__()
        self.decay = decay
        self.module: M = copy.deepcopy(original).requires_grad_(False)

    def restart(self, original: nn.Module) -> None:
        """Copy the weights of the original; otherwise like :meth:`update`."""
        self._blend(original, share=1.0)

    def update(self, original: nn.Module) -> None:
        """Move the weights towards those of the original.

        Args:
            original: A module with all parameter and buffer names of the copy. It may have more:
                a method passes itself although the copy holds only some of its parts.
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
    """The last ``size`` features of pictures or captions, with their identities.

    The forward pass calls :meth:`hold`, and :meth:`write` replaces the oldest rows after the
    step. Rows must not change between a loss and its gradient, and all parts of an accumulated
    batch must see the same queue. With several processes, the rows of all processes are written
    in rank order.

    Rows that were never written are random unit vectors with the identity :data:`EMPTY`.

    Attributes:
        features: fp32 ``[size, D]``.
        ids: Identities, int64 ``[size]``.
        pointer: The next row to write, int64, a scalar.
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
        """True for rows that were written, bool ``[size]``."""
        return self.ids != EMPTY

    def hold(self, features: Tensor, ids: Tensor) -> None:
        """Keep features ``[N, D]`` with identities ``[N]`` until the next :meth:`write`."""
        self._held.append((features.detach().float(), ids))

    @torch.no_grad()
    def write(self) -> None:
        """Write the held rows; if they exceed the size of the queue, write the last ones."""
        if not self._held:
            return
        features, ids = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        self._held.clear()
        features, ids = gather(features), gather(ids)
        place = self.pointer + torch.arange(len(ids), device=ids.device)
        rows = place[-len(self) :] % len(self)
        self.features[rows], self.ids[rows] = features[-len(self) :], ids[-len(self) :]
        self.pointer.copy_((self.pointer + len(ids)) % len(self))
