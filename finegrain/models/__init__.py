"""Towers: networks that turn pixels or token ids into embeddings."""

from finegrain.models.conv_tower import ConvConfig, ConvTower
from finegrain.models.image_tower import TimmConfig, TimmTower, VisionTransformer, VitConfig
from finegrain.models.text_tower import TextConfig, TextTower

__all__ = [
    "ConvConfig",
    "ConvTower",
    "ImageConfig",
    "ImageTower",
    "TextConfig",
    "TextTower",
    "TimmConfig",
    "TimmTower",
    "VisionTransformer",
    "VitConfig",
]

ImageConfig = VitConfig | ConvConfig | TimmConfig
ImageTower = VisionTransformer | ConvTower | TimmTower
