"""TBPS-CLIP: an empirical study of fine-tuning CLIP for person search.

Source: Cao et al., AAAI 2024, https://arxiv.org/abs/2308.10045.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from finegrain.losses import cyclic, sdm, soft_itc
from finegrain.methods.base import BaseConfig, Batch
from finegrain.methods.clip import MAX_LOGIT_SCALE, Clip
from finegrain.methods.two_towers import check_losses
from finegrain.models import ImageConfig, ImageTower, TextConfig, TextTower, VisionTransformer

LOSSES = ("nitc", "ritc", "citc")
RITC_EPSILON = 1e-2


@dataclass(frozen=True, kw_only=True)
class TbpsClipConfig(BaseConfig):
    """The towers of TBPS-CLIP and its soft labels.

    Attributes:
        image, text: The towers; the paper uses CLIP ViT-B/16 at 224x224 with a text dropout of
            0.05.
        temperature: Initial temperature if no weights are loaded.
        softness: Weight of the model's own prediction in the targets of N-ITC.
        ramp: Number of steps in which that weight grows from 0; one epoch in the paper.
    """

    method_name: ClassVar[str] = "tbps_clip"

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.07
    softness: float = 0.5
    ramp: int = 212

    def tiny(self) -> TbpsClipConfig:
        return replace(self, image=self.image.tiny(), text=self.text.tiny(), embed_dim=32, ramp=5)

    def build(self, losses: Collection[str] = ("nitc", "ritc")) -> TbpsClip:
        """Build the towers.

        Raises:
            RecipeError: A loss is unknown.
        """
        check_losses("TBPS-CLIP", losses, LOSSES)
        towers = self.image.build(self.embed_dim), self.text.build(self.embed_dim)
        return TbpsClip(self, *towers, losses)


class TbpsClip(Clip):
    """CLIP with normalised, reversed and cyclic contrastive losses and a frozen patch projection.

    ``nitc`` and ``ritc`` are the simplified method of the paper. Two losses of the full method
    are missing: SS-I and MVS-I, which need several views of a picture.
    """

    training_only = ("steps_done",)

    def __init__(
        self,
        config: TbpsClipConfig,
        image_tower: ImageTower,
        text_tower: TextTower,
        losses: Collection[str],
    ) -> None:
        super().__init__(image_tower, text_tower, temperature=config.temperature)
        self.config = config
        self.loss_names = tuple(losses)
        if isinstance(image_tower, VisionTransformer):
            # A frozen patch projection makes training more stable (MoCo v3, Chen et al. 2021,
            # section 4, https://arxiv.org/abs/2104.02057).
            image_tower.conv1.requires_grad_(False)
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.encode_images(batch.pixels)
        texts = self.encode_texts(batch.ids, batch.eot)
        scale = _capped(self.logit_scale.exp())
        losses: dict[str, Tensor] = {}
        if "nitc" in self.loss_names:
            losses["nitc"] = self._nitc(batch, images, texts, scale)
        if "ritc" in self.loss_names:
            losses["ritc"] = sdm(images, texts, batch.pids, scale, epsilon=RITC_EPSILON) / 2
        if "citc" in self.loss_names:
            losses["citc"] = cyclic(images, texts)
        return losses

    def _nitc(self, batch: Batch, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        """Compute N-ITC; the teacher is the model itself with another dropout of the captions.

        Without dropout, teacher and model would agree and the soft part would have no gradient.
        """
        with torch.no_grad():
            teacher = images.detach(), self.encode_texts(batch.ids, batch.eot)
        softness = self.config.softness * (self.steps_done / self.config.ramp).clamp(max=1)
        return soft_itc(images, texts, teacher, batch.pids, scale, softness=softness)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step; unlike in CLIP, the scale parameter is not clamped."""
        self.steps_done += 1


def _capped(scale: Tensor) -> Tensor:
    """Limit the scale to :data:`MAX_LOGIT_SCALE` without changing its gradient.

    The released code limits the value in place, which does not change the gradient either.
    """
    return scale + (scale.clamp(max=MAX_LOGIT_SCALE) - scale).detach()
