"""OpenAI's released CLIP weights (ViT models), and checkpoints in their layout."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from finegrain.models.weights.renaming import rename

THEIRS_TO_OURS = {
    "visual.{}": "image_tower.{}",
    "transformer.{}": "text_tower.transformer.{}",
    "token_embedding.weight": "text_tower.token_embedding.weight",
    "positional_embedding": "text_tower.positional_embedding",
    "ln_final.{}": "text_tower.ln_final.{}",
    "text_projection": "text_tower.text_projection",
    "logit_scale": "logit_scale",
}
IGNORE = ("input_resolution", "context_length", "vocab_size")


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names to ours."""
    return rename(state, THEIRS_TO_OURS, IGNORE)
