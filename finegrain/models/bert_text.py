"""A BERT or XLM-R as a text tower, as in Chinese-CLIP and in multilingual models of open_clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.joint_bert import NORM_EPS, BertConfig, BertEncoder, initialise
from finegrain.preprocess import Cleaning, Tokenizer
from finegrain.preprocess.cleaning import NO_CLEANING
from finegrain.preprocess.tokenizer_file import tokenizer_of


@dataclass(frozen=True, kw_only=True)
class BertTextConfig:
    """A text tower with bidirectional attention, without attention to padding.

    The defaults are those of Chinese-CLIP (Yang et al. 2022, https://arxiv.org/abs/2211.01335).

    Attributes:
        context_length: Maximum number of tokens of a caption, including start and end.
        positions: Number of position embeddings.
        mlp_width: Channels inside the MLPs.
        pool: The output that becomes the embedding: that of the first token, or the mean over
            all tokens of the caption.
        projection: ``linear``, or ``mlp`` with a hidden layer of the mean width and without
            biases, as in open_clip.
        dropout: Share of channels and of attention weights that training sets to zero.
        tokenizer_file: File of the tokenizer; see
            :func:`~finegrain.preprocess.tokenizer_file.read_tokenizer`. None is CLIP's
            tokenizer, for training from random weights.
        cleaning: How a caption is cleaned before it is split into tokens.
    """

    vocabulary: int = 21128
    context_length: int = 52
    positions: int = 512
    channels: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    norm_eps: float = NORM_EPS
    pool: Literal["first", "mean"] = "first"
    projection: Literal["linear", "mlp"] = "linear"
    dropout: float = 0.1
    tokenizer_file: str | None = None
    cleaning: Cleaning = NO_CLEANING

    def __post_init__(self) -> None:
        if self.context_length > self.positions:
            raise RecipeError(
                f"captions have up to {self.context_length} tokens and there are {self.positions} "
                f"positions; set method.text.positions to {self.context_length} or more"
            )

    def tiny(self) -> BertTextConfig:
        """The same architecture with CLIP's tokenizer, small enough to train on a CPU."""
        return replace(
            self,
            vocabulary=49408,
            tokenizer_file=None,
            channels=32,
            depth=2,
            heads=2,
            mlp_width=64,
        )

    def tokenizer(self) -> Tokenizer:
        """Make the tokenizer of this tower.

        Raises:
            DataError: The tokenizer file cannot be read, or has ids beyond the vocabulary.
        """
        return tokenizer_of(
            self.tokenizer_file,
            context_length=self.context_length,
            cleaning=self.cleaning,
            vocabulary=self.vocabulary,
        )

    def training_tokenizer(self) -> Tokenizer:
        """Make the tokenizer for training, which is the same."""
        return self.tokenizer()

    def build(self, embed_dim: int) -> BertTextTower:
        return BertTextTower(self, embed_dim)


class BertTextTower(nn.Module):
    """``ids [N, L], eot [N] -> [N, D]``: the projected first token, or mean token.

    Tokens attend to those up to the end-of-text token, so padding beyond it does not change the
    embedding.
    """

    def __init__(self, config: BertTextConfig, embed_dim: int) -> None:
        super().__init__()
        width, hidden = config.channels, (config.channels + embed_dim) // 2
        self.pool = config.pool
        self.bert = BertEncoder(
            BertConfig(
                vocabulary=config.vocabulary,
                positions=config.positions,
                channels=width,
                depth=config.depth,
                heads=config.heads,
                dropout=config.dropout,
                mlp_width=config.mlp_width,
                norm_eps=config.norm_eps,
            )
        )
        self.proj: nn.Module = (
            nn.Linear(width, embed_dim, bias=False)
            if config.projection == "linear"
            else nn.Sequential(
                nn.Linear(width, hidden, bias=False),
                nn.GELU(),
                nn.Linear(hidden, embed_dim, bias=False),
            )
        )
        self.apply(initialise)

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        seen = torch.arange(ids.shape[1], device=ids.device) <= eot[:, None]
        x = self.bert(self.bert.embed(ids), seen)
        if self.pool == "first":
            return self.proj(x[:, 0])
        total = (x * seen[..., None].to(x.dtype)).sum(dim=1)
        return self.proj(total / (eot[:, None] + 1).to(x.dtype))
