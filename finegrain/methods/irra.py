"""IRRA: implicit relation reasoning and aligning.

Source: Jiang and Ye, CVPR 2023, https://arxiv.org/abs/2303.12501.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.losses import cmpm, identity, itc, sdm
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.token_masking import Masked, mask_words
from finegrain.methods.two_towers import TwoTowers, check_losses, unit
from finegrain.models import (
    ClipTextTower,
    ImageConfig,
    ImageTower,
    TextConfig,
    TokenTower,
    with_tokens,
)
from finegrain.models.fusion import CrossFormer, MlmHead

LOSSES = ("sdm", "id", "mlm", "itc", "cmpm")
HEAD_WIDTH = 64
"""Channels of an attention head, as everywhere in CLIP ViT-B."""

Hide = Literal["everywhere", "mlm"]


@dataclass(frozen=True, kw_only=True)
class IrraConfig(BaseConfig):
    """The towers of IRRA, and its heads, which are used in training only.

    Attributes:
        image, text: The towers; the defaults are CLIP ViT-B/16 at 384x128.
        temperature: Constant temperature of the losses; IRRA does not learn it.
        identities: Number of people in the training split: 11,003 in CUHK-PEDES.
        fusion_depth: Number of layers of the cross-former after its cross-attention.
        mask_rate: Share of words that MLM masks.
        hide: Which losses see masked captions. ``everywhere`` is the released code: it masks the
            caption in place, so all losses see the masked one, and one pass of the text tower
            serves all. ``mlm`` is figure 2 of the paper: only MLM sees masked captions.
    """

    method_name: ClassVar[str] = "irra"
    head_losses: ClassVar[frozenset[str]] = frozenset({"id", "mlm"})

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.02
    identities: int = 11003
    fusion_depth: int = 4
    mask_rate: float = 0.15
    hide: Hide = "everywhere"

    def tiny(self) -> Self:
        return replace(
            self,
            image=self.image.tiny(),
            text=self.text.tiny(),
            embed_dim=64,
            identities=48,
            fusion_depth=1,
        )

    def build(self, losses: Collection[str] = ("sdm", "id", "mlm")) -> Irra:
        """Build the towers, and the heads that the losses need.

        Raises:
            RecipeError: A loss is unknown, or MLM is combined with a tower that has no tokens.
        """
        check_losses("IRRA", losses, LOSSES)
        return Irra(self, self.image.build(self.embed_dim), self.text.build(self.embed_dim), losses)


class Views(NamedTuple):
    """Embeddings before normalisation: pictures ``[N, D]``, captions ``[K * N, D]``."""

    images: Tensor
    texts: Tensor


class Tokens(NamedTuple):
    """All tokens of pictures ``[N, 1 + P, D]`` and captions ``[K * N, L, D]``.

    If MLM is one of the losses, the captions are masked.
    """

    images: Tensor
    texts: Tensor
    masked: Masked


class Irra(TwoTowers):
    """CLIP's towers trained by SDM, identity classification and masked language modelling.

    With the defaults, the parameter counts equal the paper's: 194.535 M with all heads for
    CUHK-PEDES, and 149.618 M for the towers, which are the only part that search needs.
    """

    training_only: tuple[str, ...] = ("classifier", "fusion", "mlm_head")

    token_losses: ClassVar[tuple[str, ...]] = ("mlm",)
    """Losses that use all tokens instead of one embedding."""

    text_tower: ClipTextTower

    def __init__(
        self,
        config: IrraConfig,
        image_tower: ImageTower,
        text_tower: ClipTextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(image_tower, text_tower)
        self.config = config
        self.loss_names = tuple(losses)
        width = config.embed_dim
        if "id" in losses:
            self.classifier = nn.Linear(width, config.identities)
            nn.init.normal_(self.classifier.weight, std=0.001)
            nn.init.zeros_(self.classifier.bias)
        self.reads_tokens = not set(self.token_losses).isdisjoint(losses)
        if self.reads_tokens:
            self._token_tower()  # raises an error if the tower has no tokens
            depth = config.fusion_depth
            self.fusion = CrossFormer(width, depth=depth, heads=max(1, width // HEAD_WIDTH))
        if "mlm" in losses:
            self.mlm_head = MlmHead(width, vocabulary=config.text.vocabulary, depth=depth)

    def _token_tower(self) -> TokenTower:
        names = " and ".join(name for name in self.token_losses if name in self.loss_names)
        return with_tokens(
            self.image_tower,
            reason=f"{names} looks at the tokens of a picture",
            advice=f"leave {names} out of the losses, or choose a VitConfig or a ConvConfig",
        )

    def check_identities(self, count: int) -> None:
        if "id" in self.loss_names and count != self.config.identities:
            raise RecipeError(
                f"the identity loss is set up for {self.config.identities} people and the "
                f"training split has {count}; --set method.identities={count}"
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views, tokens = self._views(batch)
        losses = self._global_losses(views, batch.pids)
        if tokens is not None:
            losses["mlm"] = self._mlm(self._fused(tokens), tokens.masked)
        return losses

    def _views(self, batch: Batch) -> tuple[Views, Tokens | None]:
        """Encode a batch; the tokens are None if no loss needs them."""
        if not self.reads_tokens:
            images = self.image_tower(batch.pixels)
            return Views(images, self.text_tower(batch.ids, batch.eot)), None
        image_tokens = self._token_tower().tokens(batch.pixels)
        masked = self._hidden(self._padded(batch.ids))
        text_tokens = self.text_tower.tokens(masked.ids)
        if self.config.hide == "everywhere":
            rows = torch.arange(len(text_tokens), device=text_tokens.device)
            # In an empty caption, the end token itself is masked. The released code reads the
            # position of the largest id, which is then the start token.
            ends = batch.eot.long()
            ends = torch.where(masked.targets[rows, ends] > 0, 0, ends)
            texts = text_tokens[rows, ends]
        else:
            texts = self.text_tower(batch.ids, batch.eot)
        return Views(image_tokens[:, 0], texts), Tokens(image_tokens, text_tokens, masked)

    def _global_losses(self, views: Views, pids: Tensor) -> dict[str, Tensor]:
        """Compute the losses of the embeddings."""
        images, texts = views
        scale = torch.tensor(1 / self.config.temperature, device=images.device)
        losses: dict[str, Tensor] = {}
        if "sdm" in self.loss_names:
            losses["sdm"] = sdm(unit(images), unit(texts), pids, scale)
        if "itc" in self.loss_names:
            losses["itc"] = itc(unit(images), unit(texts), None, scale)
        if "cmpm" in self.loss_names:
            losses["cmpm"] = cmpm(images, texts, pids)
        if "id" in self.loss_names:
            losses["id"] = identity(self.classifier(images), self.classifier(texts), pids)
        return losses

    def _fused(self, tokens: Tokens) -> Tensor:
        """Output of the cross-former for each caption and its own picture, ``[K * N, L, D]``."""
        captions = len(tokens.texts) // len(tokens.images)
        return self.fusion(tokens.texts, tokens.images.repeat_interleave(captions, dim=0))

    def _mlm(self, fused: Tensor, masked: Masked) -> Tensor:
        """Cross-entropy of the masked words.

        The head runs on masked positions only. Other positions do not enter the loss, and each
        would cost 49,408 logits.
        """
        hidden = masked.targets > 0
        logits = self.mlm_head(fused[hidden])
        return F.cross_entropy(logits.float(), masked.targets[hidden].long())

    def _hidden(self, ids: Tensor) -> Masked:
        if "mlm" not in self.loss_names:
            return Masked(ids, torch.zeros_like(ids))
        return mask_words(ids, rate=self.config.mask_rate)

    def _padded(self, ids: Tensor) -> Tensor:
        """Pad captions to the context length.

        The cross-former attends to padding, so the length must be constant.
        """
        return F.pad(ids, (0, self.config.text.context_length - ids.shape[1]))
