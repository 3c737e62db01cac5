"""The base of RDE and ITSELF: a global embedding, and one of the tokens with the most attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import tal
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.token_masking import Disturbed, disturb_words
from finegrain.methods.two_towers import TwoTowers, unit
from finegrain.models import (
    ClipTextTower,
    ImageConfig,
    ImageTower,
    TextConfig,
    TokenTower,
    with_tokens,
)
from finegrain.models.rollout import Rollout
from finegrain.models.token_selection import TokenSelection, allowed_patches, allowed_words

START_AND_END = 2


@dataclass(frozen=True, kw_only=True)
class DualEmbeddingConfig(BaseConfig):
    """The towers, the token selections, and the options of the triplet alignment loss.

    Attributes:
        image, text: The towers; the defaults are CLIP ViT-B/16 at 384x128.
        global_dim: Width of the global embedding of the towers.
        selected_dim: Width of the embedding of the selected tokens.
        ratio: Share of the tokens that are selected. For captions, it is a share of the context
            length.
        global_share: Share of the global embedding in the score; the other one has the rest.
        temperature, margin: Options of the triplet alignment loss.
        disturb: Share of words that training masks, replaces or drops.
        short_captions: What fills the batch statistics of the token selection if a caption has
            fewer words than it selects. ``words`` repeats one of the words, so that padding has no
            effect. ``padding`` reproduces the released code, which pads every caption to the
            context length.
    """

    image: ImageConfig
    text: TextConfig
    global_dim: int = 512
    selected_dim: int = 1024
    ratio: float = 0.3
    global_share: float = 0.5
    temperature: float = 0.015
    margin: float = 0.1
    disturb: float = 0.2
    short_captions: Literal["words", "padding"] = "words"

    def __post_init__(self) -> None:
        if not 0 < self.global_share < 1:
            raise RecipeError(
                "expected method.global_share above 0 and below 1, because search uses both "
                f"embeddings; got {self.global_share}"
            )

    @property
    def embed_dim(self) -> int:
        """Width of the search embedding: both embeddings concatenated."""
        return self.global_dim + self.selected_dim


class Views(NamedTuple):
    """Both embeddings of pictures or of captions, before normalisation: ``[N, D]``, ``[N, E]``."""

    pooled: Tensor
    selected: Tensor

    def unit(self) -> Views:
        """L2-normalise both."""
        return Views(unit(self.pooled), unit(self.selected))

    def joined(self, share: float) -> Tensor:
        """Concatenate to one vector of unit length.

        An inner product is then ``share`` times the cosine of the global embeddings plus
        ``1 - share`` times that of the others.
        """
        pooled, selected = self.unit()
        return torch.cat([math.sqrt(share) * pooled, math.sqrt(1 - share) * selected], dim=1)


class DualEmbedding(TwoTowers):
    """CLIP's towers with token selection.

    Search uses one vector per picture and caption. An inner product is the weighted mean of the
    two cosines; see :attr:`DualEmbeddingConfig.global_share`.
    """

    starts_fresh = ("image_selection", "text_selection")

    title: ClassVar[str]
    """Name of the method, for messages."""

    config: DualEmbeddingConfig
    image_tower: TokenTower
    text_tower: ClipTextTower

    def __init__(
        self, config: DualEmbeddingConfig, image_tower: ImageTower, text_tower: ClipTextTower
    ) -> None:
        token_tower = with_tokens(
            image_tower,
            reason=f"{self.title} selects among the tokens of a picture",
            advice="choose a VitConfig or a ConvConfig",
        )
        super().__init__(token_tower, text_tower)
        self.config = config
        self.image_selection = TokenSelection(config.global_dim, config.selected_dim)
        self.text_selection = TokenSelection(config.global_dim, config.selected_dim)

    def encode_images(self, pixels: Tensor) -> Tensor:
        return self._images(pixels).joined(self.config.global_share)

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        return self._texts(ids, eot).joined(self.config.global_share)

    @property
    def rollout(self) -> Rollout | None:
        """The layers whose attention selects tokens; None is the last one."""
        return None

    @property
    def ratio(self) -> float:
        """Share of the tokens to select."""
        return self.config.ratio

    def _views(self, batch: Batch) -> tuple[Views, Views]:
        """Encode the pictures and the disturbed captions of a batch."""
        ids, eot = self._disturbed(batch)
        return self._images(batch.pixels), self._texts(ids, eot)

    def _rankings(self, images: Views, texts: Views, pids: Tensor) -> tuple[Tensor, Tensor]:
        """The triplet alignment losses of each picture with its captions, for both embeddings."""
        temperature, margin = self.config.temperature, self.config.margin
        pairs = zip(images.unit(), texts.unit(), strict=True)
        pooled, selected = (
            tal(image, text, pids, temperature=temperature, margin=margin) for image, text in pairs
        )
        return pooled, selected

    def _disturbed(self, batch: Batch) -> Disturbed:
        if not self.config.disturb:
            return Disturbed(batch.ids, batch.eot)
        return disturb_words(batch.ids, batch.eot, rate=self.config.disturb)

    def _images(self, pixels: Tensor) -> Views:
        attended = self.image_tower.attended(pixels, self.rollout)
        count = self._count(attended.tokens.shape[1] - 1)
        selected = self.image_selection(attended, allowed_patches(attended), count)
        return Views(attended.tokens[:, 0], selected)

    def _texts(self, ids: Tensor, eot: Tensor) -> Views:
        context, fill = self.config.text.context_length, None
        padded = self.training and self.config.short_captions == "padding"
        if padded:
            ids = F.pad(ids, (0, context - ids.shape[1]))
        attended = self.text_tower.attended(ids, eot, self.rollout)
        if padded:
            fill = torch.arange(context, device=ids.device) > eot[:, None]
        rows = torch.arange(ids.shape[0], device=ids.device)
        count = self._count(context - START_AND_END)
        allowed = allowed_words(attended, eot)
        selected = self.text_selection(attended, allowed, count, fill=fill)
        return Views(attended.tokens[rows, eot.long()], selected)

    def _count(self, tokens: int) -> int:
        return max(1, int(tokens * self.ratio))
