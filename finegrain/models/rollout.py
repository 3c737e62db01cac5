"""Attention rollout: how much a token draws on each token of the input, over several layers.

Source: Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The layers of a rollout, and the share of weak attention that it ignores.

    The defaults are those of ITSELF, for towers of twelve blocks.

    Attributes:
        layers: Numbers of the blocks, from 0, in ascending order.
        discard: Share of the smallest entries of a layer's attention that are set to 0. The
            attention of the first token to itself is kept, as in the released code of ITSELF.
    """

    layers: tuple[int, ...] = (4, 11)
    discard: float = 0.25

    @torch.no_grad()
    def rows(self, matrices: Sequence[Tensor], at: Tensor) -> Tensor:
        """Roll out the attention of one token per row.

        Every matrix becomes ``(A + I) / 2`` with rows that sum to 1, where the identity is the
        residual path. The result is a row of the product of these matrices.

        Args:
            matrices: Attention of the chosen layers, the lowest first, each ``[N, L, L]``.
            at: Position of the token, ``[N]``.

        Returns:
            Weights that sum to 1, ``[N, L]``.
        """
        length, dtype = matrices[0].shape[-1], matrices[0].dtype
        residual = torch.eye(length, dtype=dtype, device=at.device)
        flow = F.one_hot(at, length).to(dtype)[:, None]
        for matrix in reversed(matrices):
            mixed = self._strongest(matrix) + residual
            flow = flow @ (mixed / mixed.sum(dim=-1, keepdim=True))
        return flow[:, 0]

    def _strongest(self, matrix: Tensor) -> Tensor:
        """The matrix with its smallest entries set to 0."""
        entries = matrix.flatten(1)
        count = int(entries.shape[1] * self.discard)
        smallest = entries.topk(count, dim=1, largest=False).indices
        ignored = torch.zeros_like(entries, dtype=torch.bool).scatter(1, smallest, value=True)
        ignored[:, 0] = False
        return entries.masked_fill(ignored, 0.0).view_as(matrix)
