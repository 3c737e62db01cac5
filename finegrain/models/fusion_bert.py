"""BERT in two halves: words alone, then words that look at a picture (Li et al. 2021, ALBEF)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.joint_bert import NORM_EPS, BertConfig, BertEncoder, BertLayer, initialise


class LookAt(nn.Module):
    """Cross-attention of words to the tokens of a picture, in two forms that are equal.

    :meth:`forward` is the plain one. :meth:`absorbed` never makes keys or values of the tokens:
    a score ``(W_q x + b_q) . (W_k t + b_k)`` is ``(W_k' (W_q x + b_q)) . t`` plus a number that
    is the same for every token and falls out of the softmax, and the weighted mean of
    ``W_v t + b_v`` is ``W_v`` of the weighted mean of ``t``, plus ``b_v``. For ``L`` words of
    ``heads`` heads and ``T`` tokens of width ``W``, ``2 T W^2 + 2 L T W`` multiplications
    become ``2 L heads T W + 2 L W^2``: in BERT-base at 577 tokens fewer up to 62 words, and with
    those around them 2.8 times fewer at twenty; and nothing need be kept of a picture but its
    tokens.
    """

    def __init__(self, width: int, *, heads: int, looked_at: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(looked_at, width)
        self.value = nn.Linear(looked_at, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """``[N, L, W]`` and ``[N, T, V]`` to ``[N, L, W]``."""
        q, k, v = (
            self._heads_of(part) for part in (self.query(x), self.key(tokens), self.value(tokens))
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(found.transpose(1, 2).flatten(2))

    def absorbed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The same, without dropout; words of one caption, ``[1, L, W]``, serve all pictures."""
        head, length = x.shape[2] // self.heads, x.shape[1]
        into_keys = self.key.weight.view(self.heads, head, -1)
        into_values = self.value.weight.view(self.heads, head, -1)
        q = self._heads_of(self.query(x)) @ into_keys * head**-0.5
        attention = (q.flatten(1, 2) @ tokens.transpose(1, 2)).softmax(dim=-1)
        mean = (attention @ tokens).view(tokens.shape[0], self.heads, length, -1)
        found = mean @ into_values.transpose(1, 2)
        return self.out(found.transpose(1, 2).flatten(2) + self.value.bias)

    def _heads_of(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)


class FusionLayer(BertLayer):
    """BERT's layer whose words look at a picture between its two halves."""

    def __init__(self, config: BertConfig, *, looked_at: int) -> None:
        super().__init__(config)
        self.cross = LookAt(
            config.channels, heads=config.heads, looked_at=looked_at, dropout=config.dropout
        )
        self.cross_norm = nn.LayerNorm(config.channels, eps=NORM_EPS)

    def look(self, x: Tensor, tokens: Tensor) -> Tensor:
        """What follows self-attention: ``[N, L, W]`` and ``[N, T, V]`` to ``[N, L, W]``."""
        return self.think(self.cross_norm(x + self.dropout(self.cross(x, tokens))))

    def look_absorbed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The same by :meth:`LookAt.absorbed`, for evaluation."""
        return self.think(self.cross_norm(x + self.cross.absorbed(x, tokens)))


class FusionBert(BertEncoder):
    """BERT whose upper layers have cross-attention.

    Args:
        config: Of the lower half; ``depth`` counts its layers.
        fusion_depth: Layers of the upper half.
        looked_at: Width of a picture's tokens.
    """

    def __init__(self, config: BertConfig, *, fusion_depth: int, looked_at: int) -> None:
        super().__init__(config)
        self.depth = config.depth
        self.layers.extend(FusionLayer(config, looked_at=looked_at) for _ in range(fusion_depth))
        self.apply(initialise)

    def read(self, ids: Tensor, seen: Tensor) -> Tensor:
        """The lower half: ``ids [N, L]`` and bool ``seen [N, L]`` to ``[N, L, W]``."""
        x = self.embed(ids)
        for layer in self.layers[: self.depth]:
            x = layer(x, seen[:, None, None, :])
        return x

    def fuse(self, x: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
        """The upper half: what was read, with the tokens of a picture each, ``[N, T, V]``."""
        for layer in self._upper():
            x = layer.look(layer.attend(x, seen[:, None, None, :]), tokens)
        return x

    def fuse_one(self, x: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
        """The first token of one caption fused with each of ``N`` pictures, for evaluation.

        Equal to :meth:`fuse` on ``N`` copies of the caption. Self-attention of the first upper
        layer, which has seen no picture yet, runs once; cross-attention runs absorbed; and of
        the last layer only the first token goes on.

        Args:
            x: What was read, ``[1, L, W]``.
            seen: Which words may be looked at, bool ``[1, L]``.
            tokens: Of the pictures, ``[N, T, V]``.

        Returns:
            ``[N, W]``.
        """
        *earlier, last = self._upper()
        mask = seen[:, None, None, :]
        for layer in earlier:
            x = layer.look_absorbed(layer.attend(x, mask), tokens)
        return last.look_absorbed(last.attend(x, mask)[:, :1], tokens)[:, 0]

    def _upper(self) -> Iterator[FusionLayer]:
        return (cast(FusionLayer, layer) for layer in self.layers[self.depth :])


def words_before(ends: Tensor, length: int) -> Tensor:
    """Which of ``length`` tokens stand before each caption's end, bool ``[N, length]``."""
    return torch.arange(length, device=ends.device) < ends[:, None]
