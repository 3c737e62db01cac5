"""Towers: networks that turn pixels or token ids into embeddings."""

from finegrain.models.conv_tower import ConvConfig, ConvTower
from finegrain.models.image_tower import TimmConfig, TimmTower, VisionTransformer, VitConfig
from finegrain.models.text_tower import ClipTextTower, TextConfig
from finegrain.models.towers import FusionTower, ImageTower, TextTower, TokenTower, with_tokens

__all__ = [
    "ClipTextTower",
    "ConvConfig",
    "ConvTower",
    "FusionTower",
    "ImageConfig",
    "ImageTower",
    "TextConfig",
    "TextTower",
    "TimmConfig",
    "TimmTower",
    "TokenTower",
    "VisionTransformer",
    "VitConfig",
    "with_tokens",
]

ImageConfig = VitConfig | ConvConfig | TimmConfig
