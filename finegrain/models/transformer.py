"""The pre-norm transformer of both CLIP towers.

Parameter names follow OpenAI's released checkpoints (``resblocks.0.attn.in_proj_weight``), so
that loading them only renames prefixes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
NORM_EPS = 1e-5
"""Epsilon of the layer normalisations of CLIP."""


class Attended(NamedTuple):
    """Tokens, and their weights in the attention of the embedding token.

    Attributes:
        tokens: Projected tokens, ``[N, L, D]``.
        attention: Attention of the token that becomes the embedding, in the last block, ``[N,
            L]``. It is the mean over heads and sums to 1 over the tokens. It has no gradient.
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
        """Attention weights of one token, averaged over heads.

        The fused kernel does not return its weights. This computes one row of them in fp32,
        which is cheap.

        Args:
            x: ``[N, L, W]``.
            at: Position of the querying token, ``[N]``.
            causal: Whether a token attends only to itself and earlier tokens.

        Returns:
            Weights that sum to 1, ``[N, L]``.
        """
        n, length, width = x.shape
        head = width // self.heads
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.in_proj_weight.dtype)
            rows = torch.arange(n, device=x.device)
            weight, bias = self.in_proj_weight, self.in_proj_bias
            q = F.linear(x[rows, at], weight[:width], bias[:width]).view(n, self.heads, head, 1)
            k = F.linear(x, weight[width : 2 * width], bias[width : 2 * width])
            scores = (k.view(n, length, self.heads, head).transpose(1, 2) @ q)[..., 0]
            scores = scores * head**-0.5
            if causal:
                hidden = torch.arange(length, device=x.device) > at[:, None]
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

    def attended(self, x: Tensor, at: Tensor) -> Attended:
        """The output tokens, and the attention of one token per row in the last block.

        Args:
            x: ``[N, L, W]``.
            at: ``[N]``.
        """
        *earlier, last = self._blocks
        for block in earlier:
            x = block(x, causal=self.causal)
        attention = last.attn.row(last.ln_1(x), at, causal=self.causal)
        return Attended(last(x, causal=self.causal), attention)
