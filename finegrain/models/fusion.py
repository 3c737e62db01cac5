"""IRRA's cross-former: cross-attention of words to a picture, used in training only.

Source: Jiang and Ye 2023 (IRRA), section 3.2, https://arxiv.org/abs/2303.12501.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.transformer import QuickGELU, Transformer


class CrossAttention(nn.Module):
    """Cross-attention without a residual path: ``[N, L, W], [N, P, W] -> [N, L, W]``.

    The parameters have the names of :class:`torch.nn.MultiheadAttention`, whose checkpoints it
    can load.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, queries: Tensor, values: Tensor) -> Tensor:
        width = queries.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q = self._heads_of(F.linear(queries, weight[:width], bias[:width]))
        k, v = F.linear(values, weight[width:], bias[width:]).chunk(2, dim=-1)
        x = F.scaled_dot_product_attention(q, self._heads_of(k), self._heads_of(v))
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def _heads_of(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)


class CrossFormer(nn.Module):
    """Text tokens ``[N, L, W]``, image tokens ``[N, P, W] -> [N, L, W]`` (IRRA, section 3.2).

    The words attend to the picture, and the result, without a residual path from the words,
    passes through a bidirectional transformer. Padding is not masked, as in the released code:
    pad captions to the length that the checkpoint was trained with.
    """

    def __init__(self, width: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(width, heads)
        self.transformer = Transformer(
            width=width, depth=depth, heads=heads, activation="quick_gelu", causal=False
        )
        self.ln_text = nn.LayerNorm(width)
        self.ln_image = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)
        nn.init.normal_(self.cross_attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(self.cross_attn.out_proj.weight, std=_into_residual(width, depth))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        x = self.cross_attn(self.ln_text(text), self.ln_image(image))
        return self.ln_post(self.transformer(x))


class MlmHead(nn.Module):
    """Word logits from fused tokens: ``[..., W] -> [..., V]``."""

    def __init__(self, width: int, *, vocabulary: int, depth: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.gelu = QuickGELU()
        self.ln = nn.LayerNorm(width)
        self.fc = nn.Linear(width, vocabulary)
        nn.init.normal_(self.dense.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.fc.weight, std=_into_residual(width, depth))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.ln(self.gelu(self.dense(x))))


def _into_residual(width: int, depth: int) -> float:
    return float(width**-0.5 * (2 * depth) ** -0.5)
