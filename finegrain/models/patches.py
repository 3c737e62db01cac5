"""Pictures cut into patches; a convolutional network encodes each patch separately."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.models.image_tower import PixelNorm

SEEN_AT_ONCE = 64
"""Number of patches that a frozen backbone encodes at a time."""


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """How pictures are cut into patches, and how patches are encoded.

    Attributes:
        model: Name of a timm backbone. The released code of FashionBERT uses ResNet-50; its paper
            names another network.
        grids: Number of rows and columns of each grid. FashionBERT has one grid of 8x8;
            (1, 2, 3, 4, 5) is the pyramid of Kaleido-BERT (Zhuge et al. 2021,
            https://arxiv.org/abs/2103.16110).
        pixels: Side to which a patch is resized, in pixels.
        frozen: Do not train the backbone, as in FashionBERT.
    """

    model: str = "resnet50"
    grids: tuple[int, ...] = (8,)
    pixels: int = 224
    frozen: bool = True

    def __post_init__(self) -> None:
        if not self.grids or min(self.grids) < 1:
            raise RecipeError(f"expected grids of 1 row or more, such as (8,), got {self.grids}")

    @property
    def count(self) -> int:
        """Number of patches of a picture."""
        return sum(grid * grid for grid in self.grids)

    def tiny(self) -> PatchConfig:
        """A small backbone that trains from random weights."""
        return replace(self, model="test_resnet", grids=(2,), pixels=32, frozen=False)


class PatchEncoder(nn.Module):
    """Pooled features of all patches: uint8 ``[N, 3, H, W] -> [N, P, F]``, grid after grid."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        if not timm.is_model(config.model):
            raise RecipeError(
                f"timm {timm.__version__} has no model {config.model!r} to encode patches with; "
                "FashionBERT uses resnet50: --set method.patches.model=resnet50"
            )
        self.config = config
        backbone: Any = timm.create_model(config.model, pretrained=False, num_classes=0)
        self.backbone = backbone
        self.features: int = backbone.num_features
        self.pixel_norm = PixelNorm(backbone.default_cfg["mean"], backbone.default_cfg["std"])
        if config.frozen:
            self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.config.frozen:
            self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = self.pixel_norm(pixels)
        grids = [cut(pictures, grid) for grid in self.config.grids]
        # Batch statistics need all patches at once, and an exported graph has no loop.
        if self.backbone.training or torch.compiler.is_exporting():
            sized = torch.cat([self._sized(patches) for patches in grids], dim=1)
            features = self.backbone(sized.flatten(0, 1))
            return features.view(pixels.shape[0], self.config.count, self.features)
        return torch.cat([self._encode_in_parts(patches) for patches in grids], dim=1)

    def _encode_in_parts(self, patches: Tensor) -> Tensor:
        """Resize and encode the patches of one grid ``[N, P, 3, h, w]``, a few at a time.

        At 224 pixels, the patches of 64 pictures would take 2.5 GB as input, and many times that
        inside the backbone.
        """
        parts = torch.split(patches.flatten(0, 1), SEEN_AT_ONCE)
        features = torch.cat([self.backbone(self._sized(part[None])[0]) for part in parts])
        return features.view(*patches.shape[:2], self.features)

    def _sized(self, patches: Tensor) -> Tensor:
        """Resize patches ``[N, P, 3, h, w]`` to the input size of the backbone."""
        side = self.config.pixels
        sized = F.interpolate(patches.flatten(0, 1), (side, side), mode="bilinear")
        return sized.view(*patches.shape[:3], side, side)


def cut(pictures: Tensor, grid: int) -> Tensor:
    """Cut into patches: ``[N, 3, H, W] -> [N, grid * grid, 3, H // grid, W // grid]``.

    Patches are in raster order. Pixels at the bottom and right that do not fill a patch are left
    out.

    Raises:
        RecipeError: The picture has fewer pixels than the grid has rows or columns.
    """
    n, colors, height, width = pictures.shape
    rows, columns = height // grid, width // grid
    if not rows or not columns:
        raise RecipeError(
            f"a picture of {height}x{width} has no {grid}x{grid} patches; choose a smaller grid "
            "or larger pictures"
        )
    whole = pictures[:, :, : grid * rows, : grid * columns]
    cells = whole.reshape(n, colors, grid, rows, grid, columns)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
