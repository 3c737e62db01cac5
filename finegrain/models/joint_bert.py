"""FashionBERT's joint encoder: the words and patches of a pair as one sequence.

Source: Gao et al. 2020, https://arxiv.org/abs/2005.09801.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-12
"""Epsilon of BERT's layer normalisation; PyTorch's default is larger."""

BERT_WIDTH = 768

Activation = Literal["gelu", "gelu_tanh"]


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """A BERT encoder. The defaults are BERT-base with the vocabulary of CLIP.

    Attributes:
        positions: Maximum number of tokens of a caption.
        dropout: Share of channels and of attention weights that training sets to zero.
        activation: ``gelu`` is the exact function, as in Hugging Face; ``gelu_tanh`` is the
            approximation in the released code of Google and FashionBERT.
        mlp_width: Channels inside the MLPs; None is four times ``channels``.
        norm_eps: Epsilon of the layer normalisations.
    """

    vocabulary: int = 49408
    positions: int = 512
    channels: int = 768
    depth: int = 12
    heads: int = 12
    dropout: float = 0.1
    activation: Activation = "gelu"
    mlp_width: int | None = None
    norm_eps: float = NORM_EPS

    def tiny(self) -> BertConfig:
        return replace(self, channels=32, depth=2, heads=2, mlp_width=None)


class BertLayer(nn.Module):
    """Self-attention and MLP, each normalised *after* its residual sum: ``[N, L, W]``."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, hidden = config.channels, config.mlp_width or 4 * config.channels
        if width % config.heads:
            raise ValueError(f"width {width} is not a multiple of the {config.heads} heads")
        self.heads = config.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = gelu(config.activation)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.think(self.attend(x, seen))

    def attend(self, x: Tensor, seen: Tensor) -> Tensor:
        """Self-attention; ``seen`` is True for tokens that may be attended to."""
        return self.attention_norm(x + self.dropout(self._attend(x, seen)))

    def think(self, x: Tensor) -> Tensor:
        """The MLP, which processes each token separately."""
        return self.mlp_norm(x + self.dropout(self.mlp_out(self.activation(self.mlp_in(x)))))

    def _attend(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (self._heads_of(part(x)) for part in (self.query, self.key, self.value))
        dropout = self.dropout.p if self.training else 0.0
        # One row per query: the attention node of ONNX does not broadcast the mask.
        mask = seen.expand(-1, -1, x.shape[1], -1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.attention_out(attended.transpose(1, 2).flatten(2))

    def _heads_of(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)


class BertEncoder(nn.Module):
    """BERT's word embedding and its encoder (Devlin et al. 2019, arXiv 1810.04805)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.channels
        self.words = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.depth))

    def embed(self, ids: Tensor) -> Tensor:
        """Embed words of the first segment and their positions: ``[N, L] -> [N, L, W]``."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        return self.dropout(self.norm(x))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Encode embedded tokens ``[N, L, W]``; ``seen`` is True for tokens to attend to.

        Args:
            x: Embedded tokens, ``[N, L, W]``.
            seen: Bool ``[N, L]``.
        """
        for layer in self.layers:
            x = layer(x, seen[:, None, None, :])
        return x


class Bert(BertEncoder):
    """The encoder and a pooler.

    The parameters correspond one to one to those of Hugging Face's ``BertModel``; see
    :mod:`finegrain.zoo.hf_bert`.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.pooler = nn.Linear(config.channels, config.channels)
        self.apply(initialise)

    def pool(self, tokens: Tensor) -> Tensor:
        """Pool the first token: ``[N, L, W] -> [N, W]``."""
        return torch.tanh(self.pooler(tokens[:, 0]))


class PatchEmbedding(nn.Module):
    """Embed the features of patches as tokens: ``[N, P, F] -> [N, P, W]``.

    A token is ``LayerNorm(W f + position + type)``; positions are numbered in raster order. The
    released code has two types, and every patch has the second one. The first is left out here.
    """

    def __init__(self, *, patches: int, features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(features, width, bias=False)
        self.positions = nn.Embedding(patches, width)
        self.kind = nn.Embedding(1, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)

    def forward(self, features: Tensor) -> Tensor:
        x = self.projection(self.dropout(features)) + self.positions.weight + self.kind.weight
        return self.dropout(self.norm(x))


class JointBert(nn.Module):
    """One bidirectional encoder over the words of a caption, then the patches of a picture."""

    def __init__(self, config: BertConfig, *, patches: int, features: int) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.patch_embedding = PatchEmbedding(
            patches=patches, features=features, width=config.channels, dropout=config.dropout
        )

    def forward(self, ids: Tensor, eot: Tensor, features: Tensor) -> Tensor:
        """Encode pairs; no token attends to padding after the end of a caption.

        Args:
            ids: Token ids ``[N, L]``.
            eot: Position of each end-of-text token, ``[N]``.
            features: Features of the patches, ``[N, P, F]``.

        Returns:
            ``[N, L + P, W]``.
        """
        return self.read(ids, eot, self.patch_embedding(features))

    def read(self, ids: Tensor, eot: Tensor, patches: Tensor) -> Tensor:
        """:meth:`forward` for embedded patches, ``[N, P, W]``.

        A single caption, ``ids [1, L]`` and ``eot [1]``, is paired with every picture.
        """
        is_word = torch.arange(ids.shape[1], device=ids.device) <= eot[:, None]
        is_patch = is_word.new_ones(patches.shape[:2])
        words = self.bert.embed(ids).expand(patches.shape[0], -1, -1)
        seen = torch.cat([is_word.expand(patches.shape[0], -1), is_patch], dim=1)
        return self.bert(torch.cat([words, patches], dim=1), seen)


class WordHead(nn.Module):
    """BERT's masked-word head: ``[..., W] -> [..., V]``; it shares the word embeddings."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.channels, config.channels)
        self.norm = nn.LayerNorm(config.channels, eps=NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.activation = gelu(config.activation)
        self.apply(initialise)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return F.linear(self.norm(self.activation(self.dense(x))), words, self.bias)


def gelu(activation: Activation) -> nn.GELU:
    return nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")


def initialise(module: nn.Module) -> None:
    """Initialise as BERT: weights with a standard deviation of 0.02, and zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def scale_to_width(encoder: nn.Module, width: int) -> None:
    """Scale the initial weights of a narrow encoder by ``sqrt(768 / width)``.

    BERT's standard deviation of 0.02 suits its 768 channels, for which nothing changes. With 128
    channels and without scaling, attention adds only about 1 % to the first token, and the match
    head needs hundreds of steps before it learns anything.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_((BERT_WIDTH / width) ** 0.5)
