"""CLIP's text tower: token ids to one embedding per caption, before normalisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.rollout import Rollout
from finegrain.models.transformer import NORM_EPS, Activation, Attended, Transformer
from finegrain.preprocess import Cleaning, Tokenizer
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.preprocess.tokenizer_file import tokenizer_of

Pool = Literal["end", "last"]

LENGTH_PARTS = 4
"""Number of parts into which a training batch is split by caption length."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A text transformer. The defaults are those of CLIP ViT-B/16.

    Attributes:
        dropout: Share of attention weights that training sets to zero.
        cleaning: How a caption is cleaned before it is split into tokens.
        causal: Whether a token attends only to itself and earlier tokens. Otherwise all tokens
            attend to all positions of the context, also to the padding, as in SigLIP and
            MobileCLIP.
        pool: The output that becomes the embedding: that of the end-of-text token, or of the last
            position of the context, as in SigLIP.
        pad_id: Id of the padding; used only if the tower is not causal.
        mlp_width: Channels inside the MLPs; None is four times ``channels``.
        norm_eps: Epsilon of the layer normalisations.
        projection_bias: Whether the projection has a bias.
        tokenizer_file: File of the tokenizer; see
            :func:`~finegrain.preprocess.tokenizer_file.read_tokenizer`. None is CLIP's tokenizer.
    """

    vocabulary: int = 49408
    context_length: int = 77
    channels: int = 512
    depth: int = 12
    heads: int = 8
    activation: Activation = "quick_gelu"
    dropout: float = 0.0
    cleaning: Cleaning = CLIP_CLEANING
    causal: bool = True
    pool: Pool = "end"
    pad_id: int = 0
    mlp_width: int | None = None
    norm_eps: float = NORM_EPS
    projection_bias: bool = False
    tokenizer_file: str | None = None

    def __post_init__(self) -> None:
        if self.causal and self.pool == "last":
            raise RecipeError(
                "a causal text tower reads the end-of-text token: set method.text.pool to end, or "
                "method.text.causal to false"
            )
        if not 0 <= self.pad_id < max(1, self.vocabulary):
            raise RecipeError(
                f"expected method.text.pad_id below the vocabulary of {self.vocabulary}, got "
                f"{self.pad_id}"
            )

    def tiny(self) -> TextConfig:
        return replace(
            self,
            vocabulary=TextConfig.vocabulary if self.tokenizer_file else self.vocabulary,
            tokenizer_file=None,
            channels=32,
            depth=2,
            heads=2,
            mlp_width=None,
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
            causal=self.causal,
            pool=self.pool,
            pad_id=self.pad_id,
            mlp_width=self.mlp_width,
            norm_eps=self.norm_eps,
            projection_bias=self.projection_bias,
        )


class ClipTextTower(nn.Module):
    """``ids [N, L], eot [N] -> [N, D]``: the projected end-of-text token.

    The position of the end-of-text token is an input, not an arg-max over ids. In half precision
    49406 (start) and 49407 (end) are the same number, and the arg-max would return the start.
    If attention is causal, padding after the end-of-text token does not change the embedding.
    Otherwise the tower itself pads every caption to the whole context, as in training. In both
    cases callers pad to the longest caption only, with any id. See :class:`TextConfig` for the
    options.
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
        causal: bool = True,
        pool: Pool = "end",
        pad_id: int = 0,
        mlp_width: int | None = None,
        norm_eps: float = NORM_EPS,
        projection_bias: bool = False,
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.pool: Pool = pool
        self.pad_id = pad_id
        self.token_embedding = nn.Embedding(vocabulary, channels)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, channels))
        self.transformer = Transformer(
            width=channels,
            depth=depth,
            heads=heads,
            activation=activation,
            causal=causal,
            dropout=dropout,
            mlp_width=mlp_width,
            norm_eps=norm_eps,
        )
        self.ln_final = nn.LayerNorm(channels, norm_eps)
        self.text_projection = nn.Parameter(torch.empty(channels, embed_dim))
        self.projection_bias = nn.Parameter(torch.zeros(embed_dim)) if projection_bias else None
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=channels**-0.5)

    def _embedded(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids)
        return x + self.positional_embedding[: ids.shape[1]].to(x.dtype)

    def _projected(self, x: Tensor) -> Tensor:
        x = self.ln_final(x) @ self.text_projection
        return x if self.projection_bias is None else x + self.projection_bias

    def tokens(self, ids: Tensor) -> Tensor:
        """All projected tokens, ``[N, L, D]``, of a causal tower.

        Raises:
            RecipeError: The tower is not causal.
        """
        self._require_causal()
        return self._projected(self.transformer(self._embedded(ids)))

    def attended(self, ids: Tensor, eot: Tensor, rollout: Rollout | None = None) -> Attended:
        """All projected tokens, and the attention of the end-of-text token.

        It is that of the last block, or rolled out over several.

        Raises:
            RecipeError: The tower is not causal.
        """
        self._require_causal()
        x, attention = self.transformer.attended(self._embedded(ids), eot.long(), rollout)
        return Attended(self._projected(x), attention)

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        eot = eot.long()
        if not self.transformer.causal:
            x = self.transformer(self._embedded(self._completed(ids, eot)))
            return self._projected(x[:, -1] if self.pool == "last" else _at(x, eot))
        if self.training:
            return self._by_length(ids, eot)
        return self._projected(_at(self.transformer(self._embedded(ids)), eot))

    def _completed(self, ids: Tensor, eot: Tensor) -> Tensor:
        """Pad ids ``[N, L]`` to the whole context with the tower's own padding."""
        n, length = ids.shape
        rest = ids.new_zeros((n, self.context_length - length))
        positions = torch.arange(self.context_length, device=ids.device)
        return torch.where(positions <= eot[:, None], torch.cat([ids, rest], dim=1), self.pad_id)

    def _require_causal(self) -> None:
        if not self.transformer.causal:
            raise RecipeError(
                "this method needs the tokens of a causal text tower, such as CLIP's; a text tower "
                "with method.text.causal=false, such as SigLIP's, works with ClipConfig"
            )

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
            self._projected(self.transformer.at(part[:, : int(at[-1]) + 1], at))
            for part, at in zip(embedded.chunk(LENGTH_PARTS), ends.chunk(LENGTH_PARTS), strict=True)
        ]
        return torch.cat(parts)[order.argsort()]


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """One position of each row: ``[N, L, W], [N] -> [N, W]``."""
    return x[torch.arange(x.shape[0], device=x.device), positions]
