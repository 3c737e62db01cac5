"""Description of a published model: its towers, tokenizer and preprocessing, before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from finegrain.models import BertTextConfig, ImageConfig, TextConfig
from finegrain.preprocess import Fit, Interpolation


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the files of a published model say about it.

    Attributes:
        image, text: The towers.
        embed_dim: Width of an embedding.
        fit, interpolation: How a picture is resized.
        sigmoid: Whether the logits have a bias.
    """

    image: ImageConfig
    text: TextConfig | BertTextConfig
    embed_dim: int
    fit: Fit
    interpolation: Interpolation
    sigmoid: bool = False
