"""BERT in two halves: the lower encodes words, the upper also attends to a picture.

Source: Li et al. 2021 (ALBEF), https://arxiv.org/abs/2107.07651.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.joint_bert import NORM_EPS, BertConfig, BertEncoder, BertLayer, initialise


class LookAt(nn.Module):
    """Cross-attention of words to the tokens of a picture, in two equivalent forms.

    :meth:`forward` is the usual form. :meth:`absorbed` computes no keys or values of the tokens:

    - A score ``(W_q x + b_q) . (W_k t + b_k)`` equals ``(W_k' (W_q x + b_q)) . t`` plus a term
      that is the same for every token, which the softmax removes.
    - The weighted mean of ``W_v t + b_v`` equals ``W_v`` times the weighted mean of ``t``, plus
      ``b_v``.

    For ``L`` words, ``T`` tokens and width ``W``, the number of multiplications changes from
    ``2 T W^2 + 2 L T W`` to ``2 L heads T W + 2 L W^2``. In BERT-base with 577 tokens, this is
    less for up to 62 words; the whole upper half needs 2.8 times fewer multiplications at twenty
    words. Only the tokens of a picture need to be stored.
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
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2))

    def absorbed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """:meth:`forward` without dropout. ``x`` may be one caption, ``[1, L, W]``, for all."""
        head, length = x.shape[2] // self.heads, x.shape[1]
        into_keys = self.key.weight.view(self.heads, head, -1)
        into_values = self.value.weight.view(self.heads, head, -1)
        q = self._heads_of(self.query(x)) @ into_keys * head**-0.5
        attention = (q.flatten(1, 2) @ tokens.transpose(1, 2)).softmax(dim=-1)
        mean = (attention @ tokens).view(tokens.shape[0], self.heads, length, -1)
        attended = mean @ into_values.transpose(1, 2)
        return self.out(attended.transpose(1, 2).flatten(2) + self.value.bias)

    def _heads_of(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)


class FusionLayer(BertLayer):
    """A layer of BERT with cross-attention to a picture between self-attention and MLP."""

    def __init__(self, config: BertConfig, *, looked_at: int) -> None:
        super().__init__(config)
        self.cross = LookAt(
            config.channels, heads=config.heads, looked_at=looked_at, dropout=config.dropout
        )
        self.cross_norm = nn.LayerNorm(config.channels, eps=NORM_EPS)

    def look(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Cross-attention and MLP: ``[N, L, W]`` and ``[N, T, V]`` to ``[N, L, W]``."""
        return self.think(self.cross_norm(x + self.dropout(self.cross(x, tokens))))

    def look_absorbed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """:meth:`look` with :meth:`LookAt.absorbed`, for evaluation."""
        return self.think(self.cross_norm(x + self.cross.absorbed(x, tokens)))


class FusionBert(BertEncoder):
    """BERT whose upper layers have cross-attention.

    Args:
        config: Sizes of all layers; ``depth`` is the number of layers of the lower half.
        fusion_depth: Number of layers of the upper half.
        looked_at: Width of the tokens of a picture.
    """

    def __init__(self, config: BertConfig, *, fusion_depth: int, looked_at: int) -> None:
        super().__init__(config)
        self.depth = config.depth
        self.layers.extend(FusionLayer(config, looked_at=looked_at) for _ in range(fusion_depth))
        self.apply(initialise)

    def read(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Run the lower half: ``ids [N, L]`` and bool ``seen [N, L]`` to ``[N, L, W]``."""
        x = self.embed(ids)
        for layer in self.layers[: self.depth]:
            x = layer(x, seen[:, None, None, :])
        return x

    def fuse(self, x: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
        """Run the upper half: words ``[N, L, W]`` and picture tokens ``[N, T, V]``."""
        for layer in self._upper():
            x = layer.look(layer.attend(x, seen[:, None, None, :]), tokens)
        return x

    def fuse_one(self, x: Tensor, seen: Tensor, tokens: Tensor) -> Tensor:
        """Fuse one caption with each of ``N`` pictures and return the first token.

        For evaluation. The result equals :meth:`fuse` on ``N`` copies of the caption. It is
        faster for three reasons: the self-attention of the first upper layer, which does not
        depend on the picture, runs once; cross-attention uses :meth:`LookAt.absorbed`; and the
        last layer computes the first token only.

        Args:
            x: Output of :meth:`read`, ``[1, L, W]``.
            seen: True for tokens that may be attended to, bool ``[1, L]``.
            tokens: Tokens of the pictures, ``[N, T, V]``.

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
    """True for tokens before the end of each caption, bool ``[N, length]``."""
    return torch.arange(length, device=ends.device) < ends[:, None]
