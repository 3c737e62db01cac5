"""CLIP weights in the layout of Hugging Face transformers (``CLIPModel``)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.zoo.renaming import rename

_BLOCK = {
    "layer_norm1.{}": "ln_1.{}",
    "layer_norm2.{}": "ln_2.{}",
    "mlp.fc1.{}": "mlp.c_fc.{}",
    "mlp.fc2.{}": "mlp.c_proj.{}",
    "self_attn.out_proj.{}": "attn.out_proj.{}",
    "self_attn.in_proj_{}": "attn.in_proj_{}",
}
THEIRS_TO_OURS = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "text_tower.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text_tower.positional_embedding",
    "text_model.final_layer_norm.{}": "text_tower.ln_final.{}",
    "text_projection.weight": "text_tower.text_projection",
    "vision_model.embeddings.class_embedding": "image_tower.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "image_tower.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "image_tower.positional_embedding",
    # The spelling "layrnorm" is Hugging Face's.
    "vision_model.pre_layrnorm.{}": "image_tower.ln_pre.{}",
    "vision_model.post_layernorm.{}": "image_tower.ln_post.{}",
    "visual_projection.weight": "image_tower.proj",
    **{
        f"{side}_model.encoder.layers.{{}}.{theirs}": f"{tower}.transformer.resblocks.{{}}.{ours}"
        for side, tower in (("text", "text_tower"), ("vision", "image_tower"))
        for theirs, ours in _BLOCK.items()
    },
}
IGNORE = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
TRANSPOSED = ("text_projection.weight", "visual_projection.weight")


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Hugging Face's CLIP to finegrain's names.

    The separate matrices of q, k and v are concatenated, and the projections are transposed.

    Raises:
        WeightsError: A name is unknown, or one of q, k, v is missing.
    """
    merged = merge_qkv(state)
    for name in TRANSPOSED:
        if name in merged:
            merged[name] = merged[name].T
    return rename(merged, THEIRS_TO_OURS, IGNORE)


def merge_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate the separate matrices of q, k and v, which Hugging Face's layouts have.

    Raises:
        WeightsError: One of the three is missing.
    """
    merged: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            parts = [name.replace(".q_proj.", f".{which}_proj.") for which in "qkv"]
            absent = [part for part in parts if part not in state]
            if absent:
                raise WeightsError(f"the checkpoint has {name} but not {', '.join(absent)}")
            merged[name.replace(".q_proj.", ".in_proj_")] = torch.cat([state[p] for p in parts])
        elif ".k_proj." not in name and ".v_proj." not in name:
            merged[name] = tensor
    return merged
