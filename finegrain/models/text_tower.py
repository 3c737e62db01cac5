"""CLIP's text tower: token ids to one embedding per caption, before normalisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from finegrain.models.transformer import Activation, Attended, Transformer
from finegrain.preprocess import Cleaning, Tokenizer
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.preprocess.clip_bpe import clip_tokenizer

LENGTH_PARTS = 4
"""Number of parts into which a training batch is split by caption length."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A causal text transformer. The defaults are those of CLIP ViT-B/16.

    Attributes:
        dropout: Share of attention weights that training sets to zero.
        cleaning: How a caption is cleaned before it is split into tokens.
    """

    vocabulary: int = 49408
    context_length: int = 77
    channels: int = 512
    depth: int = 12
    heads: int = 8
    activation: Activation = "quick_gelu"
    dropout: float = 0.0
    cleaning: Cleaning = CLIP_CLEANING

    def tiny(self) -> TextConfig:
        return replace(self, channels=32, depth=2, heads=2)

    def tokenizer(self) -> Tokenizer:
        """Make the tokenizer of this tower."""
        return clip_tokenizer(self.context_length, cleaning=self.cleaning)

    def training_tokenizer(self) -> Tokenizer:
        """Make the tokenizer for training; some other text towers use a different one."""
        return self.tokenizer()

    def build(self, embed_dim: int) -> ClipTextTower:
        return ClipTextTower(
            vocabulary=self.vocabulary,
            context_length=self.context_length,
            channels=self.channels,
            depth=self.depth,
            heads=self.heads,
            embed_dim=embed_dim,
            activation=self.activation,
            dropout=self.dropout,
        )


class ClipTextTower(nn.Module):
    """``ids [N, L], eot [N] -> [N, D]``: the projected end-of-text token.

    The position of the end-of-text token is an input, not an arg-max over ids. In half precision
    49406 (start) and 49407 (end) are the same number, and the arg-max would return the start.
    Attention is causal, so padding after the end-of-text token does not change the embedding;
    callers pad to the longest caption only.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context_length: int,
        channels: int,
        depth: int,
        heads: int,
        embed_dim: int,
        activation: Activation = "quick_gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocabulary, channels)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, channels))
        self.transformer = Transformer(
            width=channels,
            depth=depth,
            heads=heads,
            activation=activation,
            causal=True,
            dropout=dropout,
        )
        self.ln_final = nn.LayerNorm(channels)
        self.text_projection = nn.Parameter(torch.empty(channels, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=channels**-0.5)

    def _embedded(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids)
        return x + self.positional_embedding[: ids.shape[1]].to(x.dtype)

    def _features(self, ids: Tensor) -> Tensor:
        return self.transformer(self._embedded(ids))

    def tokens(self, ids: Tensor) -> Tensor:
        """All projected tokens, ``[N, L, D]``."""
        return self.ln_final(self._features(ids)) @ self.text_projection

    def attended(self, ids: Tensor, eot: Tensor) -> Attended:
        """All projected tokens, and the attention of the end-of-text token in the last block."""
        x, attention = self.transformer.attended(self._embedded(ids), eot.long())
        return Attended(self.ln_final(x) @ self.text_projection, attention)

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        if self.training:
            return self._by_length(ids, eot.long())
        x = self._features(ids)
        rows = torch.arange(x.shape[0], device=x.device)
        return self.ln_final(x[rows, eot.long()]) @ self.text_projection

    def _by_length(self, ids: Tensor, eot: Tensor) -> Tensor:
        """Compute the embeddings in parts of captions of similar length.

        A training batch has the length of its longest caption, and most captions are half as
        long. Each part is cut to its own longest caption, which saves most of the padding.
        Evaluation and exported graphs do not split the batch.
        """
        order = eot.argsort(stable=True)
        ends = eot[order]
        # One lookup for all parts: the gradient of each would be as large as the vocabulary.
        embedded = self._embedded(ids[order])
        parts = [
            self.ln_final(self.transformer.at(part[:, : int(at[-1]) + 1], at))
            for part, at in zip(embedded.chunk(LENGTH_PARTS), ends.chunk(LENGTH_PARTS), strict=True)
        ]
        return (torch.cat(parts) @ self.text_projection)[order.argsort()]
