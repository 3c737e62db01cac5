"""The pre-norm transformer of both CLIP towers.

Parameter names follow OpenAI's released checkpoints (``resblocks.0.attn.in_proj_weight``), so
that loading them only renames prefixes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.rollout import Rollout

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
NORM_EPS = 1e-5
"""Epsilon of the layer normalisations of CLIP."""


class Attended(NamedTuple):
    """Tokens, and their weights in the attention of the embedding token.

    Attributes:
        tokens: Projected tokens, ``[N, L, D]``.
        attention: Attention of the token that becomes the embedding, in the last block or rolled
            out over several, ``[N, L]``. It is the mean over heads and sums to 1 over the tokens.
            It has no gradient.
    """

    tokens: Tensor
    attention: Tensor


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention by the fused kernel: ``[N, L, W] -> [N, L, W]``.

    Training sets a share ``dropout`` of the attention weights to zero.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        n, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (
            part.view(n, length, self.heads, width // self.heads).transpose(1, 2)
            for part in qkv.chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
        x = x.transpose(1, 2).reshape(n, length, width)
        return self.out_proj(x)

    def at(self, x: Tensor, at: Tensor, *, causal: bool) -> Tensor:
        """:meth:`forward` at one position per row: ``[N, L, W], [N] -> [N, W]``."""
        n, length, width = x.shape
        shape = (n, -1, self.heads, width // self.heads)
        rows = torch.arange(n, device=x.device)
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q = F.linear(x[rows, at], weight[:width], bias[:width]).view(shape).transpose(1, 2)
        k, v = (
            part.view(shape).transpose(1, 2)
            for part in F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        )
        seen = torch.arange(length, device=x.device) <= at[:, None] if causal else None
        dropout = self.dropout if self.training else 0.0
        mask = None if seen is None else seen[:, None, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(x.reshape(n, width))

    @torch.no_grad()
    def row(self, x: Tensor, at: Tensor, *, causal: bool) -> Tensor:
        """Attention weights of one token per row, averaged over heads.

        Args:
            x: ``[N, L, W]``.
            at: Position of the querying token, ``[N]``.
            causal: Whether a token attends only to itself and earlier tokens.

        Returns:
            Weights that sum to 1, ``[N, L]``.
        """
        rows = torch.arange(x.shape[0], device=x.device)
        hidden = torch.arange(x.shape[1], device=x.device) > at[:, None]
        return self._weights(x, x[rows, at][:, None], hidden[:, None] if causal else None)[:, 0]

    @torch.no_grad()
    def matrix(self, x: Tensor, *, causal: bool) -> Tensor:
        """Attention weights of all tokens, averaged over heads: ``[N, L, W] -> [N, L, L]``."""
        positions = torch.arange(x.shape[1], device=x.device)
        return self._weights(x, x, (positions > positions[:, None])[None] if causal else None)

    def _weights(self, x: Tensor, queries: Tensor, hidden: Tensor | None) -> Tensor:
        """Attention weights of ``queries`` ``[N, Q, W]``, averaged over heads: ``[N, Q, L]``.

        The fused kernel does not return its weights. They are computed again, in fp32. ``hidden``
        is True for tokens that a query does not see, ``[N or 1, Q, L]``.
        """
        n, _, width = x.shape
        shape = (n, -1, self.heads, width // self.heads)
        weight, bias = self.in_proj_weight, self.in_proj_bias
        with torch.autocast(x.device.type, enabled=False):
            x, queries = x.to(weight.dtype), queries.to(weight.dtype)
            q = F.linear(queries, weight[:width], bias[:width]).view(shape).transpose(1, 2)
            k = F.linear(x, weight[width : 2 * width], bias[width : 2 * width]).view(shape)
            scores = q @ k.permute(0, 2, 3, 1) * (width // self.heads) ** -0.5
            if hidden is not None:
                scores = scores.masked_fill(hidden[:, None], -torch.inf)
            return scores.softmax(dim=-1).mean(dim=1)


def activation_layer(activation: Activation) -> nn.Module:
    if activation == "quick_gelu":
        return QuickGELU()
    return nn.GELU("tanh" if activation == "gelu_tanh" else "none")


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.activation = activation_layer(activation)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class ResidualBlock(nn.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        activation: Activation,
        dropout: float = 0.0,
        *,
        mlp_width: int | None = None,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.attn = Attention(width, heads, dropout)
        self.ln_1 = nn.LayerNorm(width, norm_eps)
        self.mlp = Mlp(width, mlp_width or 4 * width, activation)
        self.ln_2 = nn.LayerNorm(width, norm_eps)

    def initialise(self, width: int, depth: int) -> None:
        # As in the released code of CLIP: the scale of residual branches shrinks with depth, so
        # that the sum over all blocks starts with unit scale.
        into_residual = width**-0.5 * (2 * depth) ** -0.5
        nn.init.normal_(self.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(self.attn.out_proj.weight, std=into_residual)
        nn.init.zeros_(self.attn.out_proj.bias)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.mlp.c_proj.weight, std=into_residual)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal=causal)
        return x + self.mlp(self.ln_2(x))

    def at(self, x: Tensor, at: Tensor, *, causal: bool) -> Tensor:
        """:meth:`forward` at one position per row: ``[N, L, W], [N] -> [N, W]``."""
        rows = torch.arange(len(x), device=x.device)
        x = x[rows, at] + self.attn.at(self.ln_1(x), at, causal=causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """``depth`` residual blocks over ``[N, L, W]``, initialised as in CLIP."""

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        activation: Activation,
        causal: bool,
        dropout: float = 0.0,
        mlp_width: int | None = None,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.causal, self.heads = causal, heads
        self.activation: Activation = activation
        blocks = [
            ResidualBlock(width, heads, activation, dropout, mlp_width=mlp_width, norm_eps=norm_eps)
            for _ in range(depth)
        ]
        for block in blocks:
            block.initialise(width, depth)
        self.resblocks = nn.ModuleList(blocks)
        self._blocks = blocks  # the same modules, with their type

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal=self.causal)
        return x

    def at(self, x: Tensor, at: Tensor) -> Tensor:
        """:meth:`forward` at one position per row: ``[N, L, W], [N] -> [N, W]``.

        The last block computes this position only, which saves time in a tower of few blocks.
        """
        *earlier, last = self._blocks
        for block in earlier:
            x = block(x, causal=self.causal)
        return last.at(x, at, causal=self.causal)

    def attended(self, x: Tensor, at: Tensor, rollout: Rollout | None = None) -> Attended:
        """The output tokens, and the attention of one token per row.

        Args:
            x: ``[N, L, W]``.
            at: ``[N]``.
            rollout: Layers to roll the attention out over; None takes that of the last block.
        """
        if rollout is not None:
            matrices = []
            for number, block in enumerate(self._blocks):
                if number in rollout.layers:
                    matrices.append(block.attn.matrix(block.ln_1(x), causal=self.causal))
                x = block(x, causal=self.causal)
            return Attended(x, rollout.rows(matrices, at))
        *earlier, last = self._blocks
        for block in earlier:
            x = block(x, causal=self.causal)
        attention = last.attn.row(last.ln_1(x), at, causal=self.causal)
        return Attended(last(x, causal=self.causal), attention)
