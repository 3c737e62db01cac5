"""ALBEF's image tower: a plain vision transformer whose tokens words can look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD, PixelNorm


@dataclass(frozen=True, kw_only=True)
class AlbefImageConfig:
    """The vision transformer of ALBEF. The defaults are ViT-B/16 at RaSa's 384x384.

    Attributes:
        mean, std: What pixels in 0..1 are normalised with, RGB; CLIP's own.
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
        if self.height % self.patch or self.width % self.patch:
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


class AlbefImageTower(nn.Module):
    """``[N, 3, H, W] uint8 -> [N, D]``: the projected class token.

    ``tokens`` gives all tokens *before* the projection, ``[N, 1 + P, W]``, class token first,
    then patches in raster order: what the upper half of BERT looks at.
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

    def tokens(self, pixels: Tensor) -> Tensor:
        return self.vit.forward_features(self.pixel_norm(pixels))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(self.tokens(pixels)[:, 0])
