"""Image towers: uint8 pixels to one embedding per picture, before normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.rollout import Rollout
from finegrain.models.transformer import Activation, Attended, Transformer

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PixelNorm(nn.Module):
    """``(x / 255 - mean) / std`` on uint8 pixels ``[N, 3, H, W]``.

    It is part of the tower, so that an exported graph takes raw pixels and its caller cannot
    normalise them wrongly.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not persistent: the values come from the recipe, and released checkpoints lack them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.mean.dtype) - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """A CLIP vision transformer. The defaults are ViT-B/16 at 384x128, a person's proportions.

    Attributes:
        height, width: Size of the pictures, in pixels.
        patch: Side of a patch, in pixels.
        mean, std: Normalisation of pixels in 0..1, RGB; the defaults are CLIP's.
    """

    height: int = 384
    width: int = 128
    patch: int = 16
    channels: int = 768
    depth: int = 12
    heads: int = 12
    activation: Activation = "quick_gelu"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def tiny(self) -> VitConfig:
        """The same architecture, small enough to train on a CPU in seconds."""
        return replace(self, height=128, width=64, patch=16, channels=32, depth=2, heads=2)

    def build(self, embed_dim: int) -> VisionTransformer:
        return VisionTransformer(
            size=(self.height, self.width),
            patch=self.patch,
            channels=self.channels,
            depth=self.depth,
            heads=self.heads,
            embed_dim=embed_dim,
            activation=self.activation,
            mean=self.mean,
            std=self.std,
        )


class VisionTransformer(nn.Module):
    """CLIP's image tower for pictures of any height and width (Radford et al. 2021).

    ``[N, 3, H, W] uint8 -> [N, D]``: the projected class token. ``tokens`` gives all projected
    tokens ``[N, 1 + P, D]``: the class token, then the patches in raster order.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        patch: int,
        channels: int,
        depth: int,
        heads: int,
        embed_dim: int,
        activation: Activation = "quick_gelu",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        height, width = size
        if height % patch or width % patch:
            raise RecipeError(
                f"a picture of {height}x{width} does not divide into patches of {patch}; "
                "choose a height and a width that are multiples of the patch"
            )
        self.grid = (height // patch, width // patch)
        scale = channels**-0.5
        self.pixel_norm = PixelNorm(mean, std)
        self.conv1 = nn.Conv2d(3, channels, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(channels))
        self.positional_embedding = nn.Parameter(
            scale * torch.randn(1 + self.grid[0] * self.grid[1], channels)
        )
        self.ln_pre = nn.LayerNorm(channels)
        self.transformer = Transformer(
            width=channels, depth=depth, heads=heads, activation=activation, causal=False
        )
        self.ln_post = nn.LayerNorm(channels)
        self.proj = nn.Parameter(scale * torch.randn(channels, embed_dim))

    def _embedded(self, pixels: Tensor) -> Tensor:
        x = self.conv1(self.pixel_norm(pixels)).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype)
        return self.ln_pre(x)

    def _features(self, pixels: Tensor) -> Tensor:
        return self.transformer(self._embedded(pixels))

    def tokens(self, pixels: Tensor) -> Tensor:
        return self.ln_post(self._features(pixels)) @ self.proj

    def attended(self, pixels: Tensor, rollout: Rollout | None = None) -> Attended:
        """All projected tokens, and the attention of the class token.

        It is that of the last block, or rolled out over several.
        """
        first = torch.zeros(pixels.shape[0], dtype=torch.long, device=pixels.device)
        x, attention = self.transformer.attended(self._embedded(pixels), first, rollout)
        return Attended(self.ln_post(x) @ self.proj, attention)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.ln_post(self._features(pixels)[:, 0]) @ self.proj
