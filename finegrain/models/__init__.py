"""Towers: networks that turn pixels or token ids into embeddings."""

from finegrain.models.bert_text import BertTextConfig, BertTextTower
from finegrain.models.conv_tower import ConvConfig, ConvTower
from finegrain.models.image_tower import VisionTransformer, VitConfig
from finegrain.models.text_tower import ClipTextTower, TextConfig
from finegrain.models.timm_tower import SiglipVitConfig, TimmConfig, TimmTower
from finegrain.models.towers import FusionTower, ImageTower, TextTower, TokenTower, with_tokens

__all__ = [
    "BertTextConfig",
    "BertTextTower",
    "ClipTextTower",
    "ConvConfig",
    "ConvTower",
    "FusionTower",
    "ImageConfig",
    "ImageTower",
    "SiglipVitConfig",
    "TextConfig",
    "TextTower",
    "TimmConfig",
    "TimmTower",
    "TokenTower",
    "VisionTransformer",
    "VitConfig",
    "with_tokens",
]

ImageConfig = VitConfig | ConvConfig | TimmConfig | SiglipVitConfig
