"""CLIP: two towers and the symmetric contrastive loss.

Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from finegrain.losses import itc
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.two_towers import Logits, TwoTowers, check_losses
from finegrain.models import BertTextConfig, ImageConfig, ImageTower, TextConfig, TextTower

MAX_LOGIT_SCALE = 100.0
"""Upper limit of the logit scale (Radford et al. 2021, section 2.5)."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig(BaseConfig):
    """The towers of CLIP, and the initial temperature of its loss.

    Attributes:
        sigmoid: Whether the model was published with the pairwise sigmoid loss, as SigLIP. It
            then has a bias of the logits, which is kept for calibration. Training uses the
            contrastive loss in either case.
    """

    method_name: ClassVar[str] = "clip"

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.07
    sigmoid: bool = False

    def tiny(self) -> ClipConfig:
        return replace(self, image=self.image.tiny(), text=self.text.tiny(), embed_dim=32)

    def build(self, losses: Collection[str] = ("itc",)) -> Clip:
        check_losses("CLIP", losses, ("itc",))
        return Clip(
            self.image.build(self.embed_dim),
            self.text.build(self.embed_dim),
            temperature=self.temperature,
            sigmoid=self.sigmoid,
        )


@dataclass(frozen=True, kw_only=True)
class BertClipConfig(BaseConfig):
    """CLIP with a BERT or XLM-R as its text tower, such as Chinese-CLIP."""

    method_name: ClassVar[str] = "bert_clip"

    image: ImageConfig
    text: BertTextConfig
    embed_dim: int = 512
    temperature: float = 0.07

    def tiny(self) -> BertClipConfig:
        return replace(self, image=self.image.tiny(), text=self.text.tiny(), embed_dim=32)

    def build(self, losses: Collection[str] = ("itc",)) -> Clip:
        check_losses("CLIP", losses, ("itc",))
        return Clip(
            self.image.build(self.embed_dim),
            self.text.build(self.embed_dim),
            temperature=self.temperature,
        )


class Clip(TwoTowers):
    """Two towers and a learned temperature; for a sigmoid model also the bias of its logits."""

    logit_bias: Tensor | None

    def __init__(
        self,
        image_tower: ImageTower,
        text_tower: TextTower,
        *,
        temperature: float = 0.07,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(image_tower, text_tower)
        # The parameter is the logarithm of the scale (section 2.3): the scale stays positive.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        # A buffer, because the contrastive loss does not depend on it.
        self.register_buffer("logit_bias", torch.zeros(()) if sigmoid else None)

    @property
    def logits(self) -> Logits:
        """The learned scale, and the bias of a sigmoid model."""
        bias = None if self.logit_bias is None else float(self.logit_bias)
        return Logits(float(self.logit_scale.detach().exp()), bias)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.encode_images(batch.pixels)
        texts = self.encode_texts(batch.ids, batch.eot)
        return {"itc": itc(images, texts, batch.pids, self.logit_scale.exp())}

    @torch.no_grad()
    def after_step(self) -> None:
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
