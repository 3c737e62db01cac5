"""CLIP weights in the layouts of OpenAI (ViT models) and of open_clip."""

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
# open_clip's CustomTextCLIP has the same text tower in a submodule `text`.
_CUSTOM_TEXT = {
    f"text.{theirs}": ours
    for theirs, ours in THEIRS_TO_OURS.items()
    if ours.startswith("text_tower.")
}
IGNORE = (
    "input_resolution",
    "context_length",
    "vocab_size",
    # The causal mask, which some versions of open_clip stored.
    "attn_mask",
    "text.attn_mask",
    # SigLIP's bias is the same for every logit, so it does not change a ranking.
    "logit_bias",
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of OpenAI's CLIP or of open_clip to finegrain's names.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, THEIRS_TO_OURS | _CUSTOM_TEXT, IGNORE)
