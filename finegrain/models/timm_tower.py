"""Image towers with a backbone of timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import timm
from timm.layers.mlp import Mlp
from timm.models import VisionTransformer
from torch import Tensor, nn

from finegrain.errors import RecipeError
from finegrain.models.image_tower import PixelNorm
from finegrain.models.transformer import Activation, activation_layer

Projection = Literal["linear", "mlp", "none", "classifier"]
Mean = tuple[float, float, float]

HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of SigLIP, which scale pixels to -1..1."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Any timm backbone by name, and its projection onto the joint space.

    Attributes:
        model: Name of the backbone.
        height, width: Size of the pictures, in pixels.
        pool: How the backbone pools its features, such as ``avg`` or ``map``. None is its default.
        projection: ``linear`` or ``mlp`` add a projection to the pooled features; ``none`` uses
            them as they are; ``classifier`` uses the classifier layer of the backbone as the
            projection.
        projection_bias: Whether the last layer of an added projection has a bias.
        mean, std: Normalisation of pixels in 0..1, RGB; None is the backbone's default.
    """

    model: str
    height: int
    width: int
    pool: str | None = None
    projection: Projection = "linear"
    projection_bias: bool = False
    mean: Mean | None = None
    std: Mean | None = None

    def tiny(self) -> TimmConfig:
        """The same backbone on small pictures."""
        return replace(self, height=64, width=32)

    def build(self, embed_dim: int) -> TimmTower:
        """Build the tower with random weights.

        Raises:
            RecipeError: timm has no such model, or it does not support the options.
        """
        name = self.model
        if not timm.is_model(name):
            raise RecipeError(
                f"timm {timm.__version__} has no model {name!r}. Similar names: "
                + (", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "none")
            )
        options: dict[str, Any] = {} if self.pool is None else {"global_pool": self.pool}
        # Vision transformers need the size of the pictures; other backbones reject the argument.
        if "vit" in name.replace("fastvit", "") or "swin" in name:
            options["img_size"] = (self.height, self.width)
        classes = embed_dim if self.projection == "classifier" else 0
        try:
            backbone: Any = timm.create_model(name, num_classes=classes, **options)
        except (TypeError, AssertionError) as error:
            raise RecipeError(
                f"timm's {name} does not support the options {options}: {error}"
            ) from error
        config = backbone.default_cfg
        return TimmTower(
            backbone,
            _projection(
                self.projection, backbone.head_hidden_size, embed_dim, bias=self.projection_bias
            ),
            mean=self.mean or config["mean"],
            std=self.std or config["std"],
        )


@dataclass(frozen=True, kw_only=True)
class SiglipVitConfig:
    """SigLIP's image tower: a vision transformer with attention pooling and without a projection.

    The defaults are ViT-B/16 of Zhai et al. 2023, https://arxiv.org/abs/2303.15343.

    Attributes:
        height, width: Size of the pictures, in pixels.
        patch: Side of a patch, in pixels.
        mlp_width: Channels inside the MLPs.
        activation: Hugging Face and the released code have ``gelu_tanh``.
        mean, std: Normalisation of pixels in 0..1, RGB.
    """

    height: int = 224
    width: int = 224
    patch: int = 16
    channels: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: Activation = "gelu_tanh"
    norm_eps: float = 1e-6
    mean: Mean = HALF
    std: Mean = HALF

    def tiny(self) -> SiglipVitConfig:
        """The same architecture, small enough to train on a CPU in seconds."""
        return replace(
            self, height=64, width=32, patch=16, channels=32, depth=2, heads=2, mlp_width=64
        )

    def build(self, embed_dim: int) -> TimmTower:
        """Build the tower with random weights.

        Raises:
            RecipeError: The joint space is not as wide as the tower.
        """
        if embed_dim != self.channels:
            raise RecipeError(
                f"SigLIP's image tower has no projection, so method.embed_dim must be its width "
                f"{self.channels}, got {embed_dim}"
            )
        backbone: Any = VisionTransformer(
            img_size=(self.height, self.width),
            patch_size=self.patch,
            embed_dim=self.channels,
            depth=self.depth,
            num_heads=self.heads,
            # timm multiplies and rounds down; half a channel keeps the product exact
            mlp_ratio=(self.mlp_width + 0.5) / self.channels,
            norm_layer=partial(nn.LayerNorm, eps=self.norm_eps),
            act_layer=partial(activation_layer, self.activation),
            class_token=False,
            global_pool="map",
            num_classes=0,
        )
        return TimmTower(backbone, nn.Identity(), mean=self.mean, std=self.std)


class TimmTower(nn.Module):
    """A timm backbone, pooled and projected: ``[N, 3, H, W] uint8 -> [N, D]``."""

    def __init__(
        self, backbone: Any, proj: nn.Module, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pixel_norm = PixelNorm(mean, std)
        self.proj = proj

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(self.backbone(self.pixel_norm(pixels)))


def _projection(kind: Projection, features: int, embed_dim: int, *, bias: bool) -> nn.Module:
    match kind:
        case "linear":
            return nn.Linear(features, embed_dim, bias=bias)
        case "mlp":
            return Mlp(features, 2 * embed_dim, embed_dim, bias=(True, bias))
        case "classifier":
            return nn.Identity()
        case "none":
            if features != embed_dim:
                raise RecipeError(
                    f"without a projection the embeddings have the {features} channels of the "
                    f"backbone, and method.embed_dim is {embed_dim}"
                )
            return nn.Identity()
