"""A small residual network for small crops of people, which can be trained on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD, PixelNorm
from finegrain.models.rollout import Rollout
from finegrain.models.transformer import Attended


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """A residual network of four stages with one block each.

    Attributes:
        height, width: Size of the pictures, in pixels.
        channels: Number of channels of each stage.
        patch: Side of the patches that the stem encodes by one convolution, in pixels (Liu et al.
            2022, section 2.3, https://arxiv.org/abs/2201.03545). With 4, a step on a processor
            with AVX2 takes about half as long. 0 is a stem of three convolutions that halves the
            picture once.
    """

    height: int = 128
    width: int = 64
    channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    patch: int = 0

    def tiny(self) -> ConvConfig:
        """The same network with fewer channels and smaller pictures."""
        return replace(self, height=64, width=32, channels=(8, 16, 16, 32))

    def build(self, embed_dim: int) -> ConvTower:
        return ConvTower(
            size=(self.height, self.width),
            channels=self.channels,
            patch=self.patch,
            embed_dim=embed_dim,
        )


class ConvTower(nn.Module):
    """``[N, 3, H, W] uint8 -> [N, D]``: a residual network that pools each row separately.

    Two changes keep small details of a 128x64 crop. The stem halves the picture once instead of
    twice (there is no max-pooling). The last feature map is averaged over columns only, so that
    the head of an upright person is not mixed with the feet (the stripes of PCB, Sun et al.
    2018, https://arxiv.org/abs/1711.09349).

    Raises:
        RecipeError: The picture does not divide into patches.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        channels: tuple[int, int, int, int],
        embed_dim: int,
        patch: int = 0,
    ) -> None:
        super().__init__()
        if patch < 0 or (patch and any(side % patch for side in size)):
            raise RecipeError(
                f"a picture of {size[0]}x{size[1]} does not divide into patches of {patch}; "
                "choose a height and a width that are multiples of the patch, or patch=0"
            )
        self.pixel_norm = PixelNorm(CLIP_MEAN, CLIP_STD)
        backbone: Any = ResNet(
            BasicBlock,  # type: ignore[arg-type]  # annotated as an instance in timm
            layers=(1, 1, 1, 1),
            channels=channels,
            stem_type="deep",
            stem_width=channels[0] // 2,
            avg_down=True,
            num_classes=0,
            global_pool="",
        )
        backbone.maxpool = nn.Identity()
        if patch:
            backbone.conv1 = nn.Conv2d(3, channels[0] // 2 * 2, patch, stride=patch, bias=False)
        self.backbone = backbone
        self.proj = nn.Linear(channels[-1] * self._num_stripes(size), embed_dim, bias=False)

    @torch.no_grad()
    def _num_stripes(self, size: tuple[int, int]) -> int:
        last_map = self.backbone.eval()(torch.zeros(1, 3, *size))
        self.backbone.train()
        return int(last_map.shape[2])

    @property
    def token_width(self) -> int:
        return self.proj.out_features

    def tokens(self, pixels: Tensor) -> Tensor:
        """The embedding, then the cells of the last map in raster order, ``[N, 1 + P, D]``.

        Each cell is projected by the part of the projection that belongs to its stripe. The
        embedding is the sum over stripes of the mean of their cells.
        """
        last_map = self.backbone(self.pixel_norm(pixels))
        by_stripe = self.proj.weight.view(len(self.proj.weight), -1, last_map.shape[2])
        cells = torch.einsum("nchw,dch->nhwd", last_map, by_stripe)
        return torch.cat([cells.mean(dim=2).sum(dim=1)[:, None], cells.flatten(1, 2)], dim=1)

    def embedding_of(self, tokens: Tensor) -> Tensor:
        """The embedding ``[N, D]`` from :meth:`tokens`."""
        return tokens[:, 0]

    def attended(self, pixels: Tensor, rollout: Rollout | None = None) -> Attended:
        """The tokens, and the similarity of each to the embedding in place of attention.

        The network has no attention. The weights are those of a single head without parameters:
        the softmax of scaled products of the tokens with the embedding. There is one such layer,
        so ``rollout`` has no effect.
        """
        tokens = self.tokens(pixels)
        fixed = tokens.detach().float()
        scores = (fixed @ fixed[:, 0, :, None])[..., 0] * fixed.shape[-1] ** -0.5
        return Attended(tokens, scores.softmax(dim=-1))

    def forward(self, pixels: Tensor) -> Tensor:
        last_map = self.backbone(self.pixel_norm(pixels))
        return self.proj(last_map.mean(dim=3).flatten(1))
