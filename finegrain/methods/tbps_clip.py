"""TBPS-CLIP: CLIP fine-tuned with what was found to help (Cao et al., AAAI 2024)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finegrain.losses import cyclic, sdm, soft_itc
from finegrain.methods.base import Batch
from finegrain.methods.clip import MAX_LOGIT_SCALE, Clip
from finegrain.methods.two_towers import check_losses
from finegrain.models import ImageConfig, ImageTower, TextConfig, TextTower, VisionTransformer

LOSSES = ("nitc", "ritc", "citc")
RITC_EPSILON = 1e-2


@dataclass(frozen=True, kw_only=True)
class TbpsClipConfig:
    """The towers of TBPS-CLIP and its soft labels.

    Attributes:
        image, text: The towers; in the paper CLIP ViT-B/16 at 224x224 with a text dropout
            of 0.05.
        temperature: That the loss starts from where no weights are loaded.
        softness: Share of the model's own guess in the targets of N-ITC.
        ramp: Steps over which it grows from 0; an epoch in the paper.
    """

    image: ImageConfig
    text: TextConfig
    embed_dim: int = 512
    temperature: float = 0.07
    softness: float = 0.5
    ramp: int = 212

    def tiny(self) -> TbpsClipConfig:
        return replace(self, image=self.image.tiny(), text=self.text.tiny(), embed_dim=32, ramp=5)

    def build(self, losses: Collection[str] = ("nitc", "ritc")) -> TbpsClip:
        """The towers.

        Raises:
            RecipeError: A loss is unknown.
        """
        check_losses("TBPS-CLIP", losses, LOSSES)
        towers = self.image.build(self.embed_dim), self.text.build(self.embed_dim)
        return TbpsClip(self, *towers, losses)


class TbpsClip(Clip):
    """CLIP with normalised, reversed and cyclic contrastive losses; its patches stay as they are.

    ``nitc`` and ``ritc`` are the paper's simplified method. Of the full one this lacks the two
    losses that need more views of a picture (SS-I and MVS-I).
    """

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
            # Chen et al. 2021 (MoCo v3), section 4: a frozen patch projection steadies training.
            image_tower.conv1.requires_grad_(False)
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.encode_images(batch.pixels)
        texts = self.encode_texts(batch.ids, batch.eot)
        scale = _capped(self.logit_scale.exp())
        found: dict[str, Tensor] = {}
        if "nitc" in self.loss_names:
            found["nitc"] = self._nitc(batch, images, texts, scale)
        if "ritc" in self.loss_names:
            found["ritc"] = sdm(images, texts, batch.pids, scale, epsilon=RITC_EPSILON) / 2
        if "citc" in self.loss_names:
            found["citc"] = cyclic(images, texts)
        return found

    def _nitc(self, batch: Batch, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        """The teacher is the model itself, its captions read with another dropout.

        Without that the soft part would have no gradient: a guess equals itself.
        """
        with torch.no_grad():
            guessed = images.detach(), self.encode_texts(batch.ids, batch.eot)
        softness = self.config.softness * (self.steps_done / self.config.ramp).clamp(max=1)
        return soft_itc(images, texts, guessed, batch.pids, scale, softness=softness)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step; unlike CLIP's, the parameter itself may grow beyond the largest scale."""
        self.steps_done += 1


def _capped(scale: Tensor) -> Tensor:
    """The scale, at most CLIP's largest, with the gradient that it has without a bound.

    The released code replaces the value in place, which its gradient does not see.
    """
    return scale + (scale.clamp(max=MAX_LOGIT_SCALE) - scale).detach()
