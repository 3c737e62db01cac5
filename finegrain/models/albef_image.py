"""ALBEF's image tower: a vision transformer that gives tokens for cross-attention.

Source: Li et al. 2021 (ALBEF), https://arxiv.org/abs/2107.07651. A small convolutional network
can replace it if there are no pretrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.conv_tower import ConvConfig, ConvTower
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD, PixelNorm


@dataclass(frozen=True, kw_only=True)
class AlbefImageConfig:
    """The vision transformer of ALBEF. The defaults are ViT-B/16 at RaSa's 384x384.

    Attributes:
        mean, std: Normalisation of pixels in 0..1, RGB; the defaults are CLIP's.
    """

    height: int = 384
    width: int = 384
    patch: int = 16
    channels: int = 768
    depth: int = 12
    heads: int = 12
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        if self.patch < 1 or self.height % self.patch or self.width % self.patch:
            raise RecipeError(
                f"a picture of {self.height}x{self.width} does not divide into patches of "
                f"{self.patch}; choose a height and a width that are multiples of the patch"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.height // self.patch, self.width // self.patch

    def tiny(self) -> AlbefImageConfig:
        return replace(self, height=64, width=32, channels=32, depth=2, heads=2)

    def build(self, embed_dim: int) -> AlbefImageTower:
        vit: Any = VisionTransformer(
            img_size=(self.height, self.width),
            patch_size=self.patch,
            embed_dim=self.channels,
            depth=self.depth,
            num_heads=self.heads,
            num_classes=0,
        )
        return AlbefImageTower(
            vit,
            grid=self.grid,
            channels=self.channels,
            embed_dim=embed_dim,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True, kw_only=True)
class ConvImageConfig:
    """A small residual network; the cells of its last feature map replace patch tokens.

    It learns from a few thousand pictures, which are too few for a transformer of the same cost.
    The field ``net`` distinguishes it from :class:`AlbefImageConfig` in the JSON of a recipe,
    which has no type field here.
    """

    net: ConvConfig

    @property
    def height(self) -> int:
        return self.net.height

    @property
    def width(self) -> int:
        return self.net.width

    def tiny(self) -> ConvImageConfig:
        return replace(self, net=self.net.tiny())

    def build(self, embed_dim: int) -> ConvTower:
        return self.net.build(embed_dim)


class AlbefImageTower(nn.Module):
    """``[N, 3, H, W] uint8 -> [N, D]``: the projected class token.

    ``tokens`` gives all tokens *before* the projection, ``[N, 1 + P, W]``: the class token, then
    the patches in raster order. The upper half of BERT attends to them.
    """

    def __init__(
        self,
        vit: Any,
        *,
        grid: tuple[int, int],
        channels: int,
        embed_dim: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.grid = grid
        self.pixel_norm = PixelNorm(mean, std)
        self.vit = vit
        self.proj = nn.Linear(channels, embed_dim)

    @property
    def token_width(self) -> int:
        return self.proj.in_features

    def tokens(self, pixels: Tensor) -> Tensor:
        return self.vit.forward_features(self.pixel_norm(pixels))

    def embedding_of(self, tokens: Tensor) -> Tensor:
        return self.proj(tokens[:, 0])

    def forward(self, pixels: Tensor) -> Tensor:
        return self.embedding_of(self.tokens(pixels))
