"""ALBEF's image tower: a plain vision transformer whose tokens words can look at.

A small convolutional net can take its place where there are no pretrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.conv_tower import ConvConfig, ConvTower
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD, PixelNorm


class TokenTower(Protocol):
    """An image tower that words can look into."""

    @property
    def token_width(self) -> int:
        """Channels of a token, ``V``."""

    def tokens(self, pixels: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` to tokens ``[N, T, V]``."""

    def embedding_of(self, tokens: Tensor) -> Tensor:
        """What the tower gives for the pictures that the tokens are of, ``[N, D]``."""


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


@dataclass(frozen=True, kw_only=True)
class ConvImageConfig:
    """A small residual net whose cells are looked at in place of a transformer's patches.

    It learns from a few thousand pictures what a transformer of the same cost would not. That
    the net is a field of its own tells the two apart in a recipe's JSON, where released runs
    name no type.
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

    @property
    def token_width(self) -> int:
        return self.proj.in_features

    def tokens(self, pixels: Tensor) -> Tensor:
        return self.vit.forward_features(self.pixel_norm(pixels))

    def embedding_of(self, tokens: Tensor) -> Tensor:
        return self.proj(tokens[:, 0])

    def forward(self, pixels: Tensor) -> Tensor:
        return self.embedding_of(self.tokens(pixels))
