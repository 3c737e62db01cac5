"""CLIP: two towers and the symmetric contrastive loss (Radford et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.losses import itc
from finegrain.methods.base import Batch
from finegrain.models import ImageConfig, ImageTower, TextConfig, TextTower

MAX_LOGIT_SCALE = 100.0
"""Radford et al. 2021, section 2.5: clipped so that logits are never scaled by more."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The towers of a CLIP, and the temperature that its loss starts from."""

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.07

    def tiny(self) -> ClipConfig:
        return replace(self, image=self.image.tiny(), text=self.text.tiny(), embed_dim=32)

    def build(self) -> Clip:
        return Clip(
            self.image.build(self.embed_dim),
            self.text.build(self.embed_dim),
            temperature=self.temperature,
        )


class Clip(nn.Module):
    """Image tower and text tower that meet in one space.

    Embeddings are normalised in fp32 whatever the towers compute in: a norm taken in half
    precision reorders near neighbours.
    """

    def __init__(
        self,
        image_tower: ImageTower,
        text_tower: TextTower,
        *,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        # The logarithm is what is learned (section 2.3): the scale stays positive.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def encode_images(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image_tower(pixels).float(), dim=-1)

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        return F.normalize(self.text_tower(ids, eot).float(), dim=-1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images = self.encode_images(batch.pixels)
        texts = self.encode_texts(batch.ids, batch.eot)
        return {"itc": itc(images, texts, batch.pids, self.logit_scale.exp())}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # DistributedDataParallel synchronises gradients of what goes through forward.
        return self.losses(batch)

    @torch.no_grad()
    def after_step(self) -> None:
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
