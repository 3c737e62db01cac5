"""CLIP weights as OpenAI released them (ViT models), and as open_clip writes them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from finegrain.zoo.renaming import rename

THEIRS_TO_OURS = {
    "visual.{}": "image_tower.{}",
    "transformer.{}": "text_tower.transformer.{}",
    "token_embedding.weight": "text_tower.token_embedding.weight",
    "positional_embedding": "text_tower.positional_embedding",
    "ln_final.{}": "text_tower.ln_final.{}",
    "text_projection": "text_tower.text_projection",
    "logit_scale": "logit_scale",
}
# open_clip's CustomTextCLIP has the same text tower as a module of its own.
_CUSTOM_TEXT = {
    f"text.{theirs}": ours
    for theirs, ours in THEIRS_TO_OURS.items()
    if ours.startswith("text_tower.")
}
IGNORE = (
    "input_resolution",
    "context_length",
    "vocab_size",
    # The causal mask, which open_clip stored for a while.
    "attn_mask",
    "text.attn_mask",
    # SigLIP's constant on every logit; it moves no picture before another.
    "logit_bias",
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's and open_clip's names to ours.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, THEIRS_TO_OURS | _CUSTOM_TEXT, IGNORE)
