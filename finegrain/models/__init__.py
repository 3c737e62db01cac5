"""Towers: networks that turn pixels or token ids into embeddings."""

from finegrain.models.image_tower import TimmConfig, TimmTower, VisionTransformer, VitConfig
from finegrain.models.text_tower import TextConfig, TextTower

__all__ = ["TextConfig", "TextTower", "TimmConfig", "TimmTower", "VisionTransformer", "VitConfig"]
