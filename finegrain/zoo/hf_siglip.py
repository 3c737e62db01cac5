"""SigLIP and SigLIP 2 in the layout of Hugging Face transformers (``SiglipModel``)."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.models import SiglipVitConfig, TextConfig
from finegrain.models.timm_tower import HALF
from finegrain.models.transformer import Activation
from finegrain.preprocess import Cleaning
from finegrain.preprocess.cleaning import HF_SIGLIP_CLEANING, NO_CLEANING
from finegrain.zoo import hf_clip
from finegrain.zoo.clip_config import HUGGING_FACE
from finegrain.zoo.description import Description
from finegrain.zoo.hf_preprocessor import read_hf_preprocessor
from finegrain.zoo.json_file import choice, number, part, read_json, size, whole
from finegrain.zoo.renaming import rename
from finegrain.zoo.tokenizer_files import (
    JSON,
    find_tokenizer,
    lower_cases,
    pad_id,
    read_tokenizer_config,
)

HEAD = "vision_model.head."
MARK = f"{HEAD}probe"
"""A tensor that no other layout has."""

_BLOCK = {
    "layer_norm1.{}": "norm1.{}",
    "layer_norm2.{}": "norm2.{}",
    "mlp.{}": "mlp.{}",
    "self_attn.out_proj.{}": "attn.proj.{}",
    "self_attn.in_proj_{}": "attn.qkv.{}",
}
_TEXT = {
    theirs: ours
    for theirs, ours in hf_clip.THEIRS_TO_OURS.items()
    if theirs.startswith("text_model.")
}
THEIRS_TO_OURS = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "text_model.head.weight": "text_tower.text_projection",
    "text_model.head.bias": "text_tower.projection_bias",
    **_TEXT,
    "vision_model.embeddings.patch_embedding.{}": "image_tower.backbone.patch_embed.proj.{}",
    "vision_model.embeddings.position_embedding.weight": "image_tower.backbone.pos_embed",
    "vision_model.post_layernorm.{}": "image_tower.backbone.norm.{}",
    f"{HEAD}probe": "image_tower.backbone.attn_pool.latent",
    f"{HEAD}q.{{}}": "image_tower.backbone.attn_pool.q.{}",
    f"{HEAD}kv.{{}}": "image_tower.backbone.attn_pool.kv.{}",
    f"{HEAD}attention.out_proj.{{}}": "image_tower.backbone.attn_pool.proj.{}",
    f"{HEAD}layernorm.{{}}": "image_tower.backbone.attn_pool.norm.{}",
    f"{HEAD}mlp.{{}}": "image_tower.backbone.attn_pool.mlp.{}",
    **{
        f"vision_model.encoder.layers.{{}}.{theirs}": f"image_tower.backbone.blocks.{{}}.{ours}"
        for theirs, ours in _BLOCK.items()
    },
}
CHANGED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "text_tower.text_projection": lambda tensor: tensor.T,
    "image_tower.backbone.pos_embed": lambda tensor: tensor[None],
    "logit_scale": lambda tensor: tensor.reshape(()),
    "logit_bias": lambda tensor: tensor.reshape(()),
}
"""Tensors of another shape."""

_ACTIVATIONS: Mapping[str, Activation] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Hugging Face's SigLIP to finegrain's names.

    Raises:
        WeightsError: A name is unknown, or one of q, k, v is missing.
    """
    merged = hf_clip.merge_qkv(state)
    for kind in ("weight", "bias"):
        joined = merged.pop(f"{HEAD}attention.in_proj_{kind}", None)
        if joined is not None:
            merged[f"{HEAD}q.{kind}"], merged[f"{HEAD}kv.{kind}"] = torch.split(
                joined, [len(joined) // 3, len(joined) - len(joined) // 3]
            )
    converted = rename(merged, THEIRS_TO_OURS, hf_clip.IGNORE)
    for name in converted.keys() & CHANGED.keys():
        converted[name] = CHANGED[name](converted[name])
    return converted


def describe(file: Path, state: Mapping[str, Tensor]) -> Description:
    """Describe a model by the ``config.json`` next to its weights.

    Sizes that the configuration leaves out are those of SigLIP B/16, as in transformers.

    Args:
        file: The weight file.
        state: Its tensors.

    Raises:
        WeightsError: The configuration or the tokenizer is missing or damaged, or the model is
            of another kind.
    """
    config_file = file.with_name(HUGGING_FACE)
    if not config_file.is_file():
        raise WeightsError(
            f"{file} is a SigLIP, and its {HUGGING_FACE} with the number of attention heads is "
            "missing. Put that file from its repository next to it"
        )
    values = read_json(config_file)
    if values.get("model_type") != "siglip":
        raise WeightsError(
            f"{config_file} describes a model of type {values.get('model_type')!r:.60}; expected "
            "'siglip'. SigLIP 2 with pictures of any size (naflex) has the type 'siglip2', which "
            "finegrain does not support"
        )
    vision = part(values, "vision_config", config_file)
    text = part(values, "text_config", config_file)
    pictures = read_hf_preprocessor(file.parent)
    height, width = size(vision.get("image_size", 224), config_file)
    if pictures.size not in (None, (height, width)):
        raise WeightsError(
            f"{config_file} has pictures of {height}x{width}, and the image processor next to it "
            f"makes {pictures.size}"
        )
    channels = _field(vision, "hidden_size", 768, config_file)
    image = SiglipVitConfig(
        height=height,
        width=width,
        patch=_field(vision, "patch_size", 16, config_file),
        channels=channels,
        depth=_field(vision, "num_hidden_layers", 12, config_file),
        heads=_field(vision, "num_attention_heads", 12, config_file),
        mlp_width=_field(vision, "intermediate_size", 3072, config_file),
        activation=_activation(vision, config_file),
        norm_eps=number(vision.get("layer_norm_eps", 1e-6), config_file),
        mean=pictures.mean or HALF,
        std=pictures.std or HALF,
    )
    return Description(
        image=image,
        text=_text(text, config_file),
        embed_dim=channels,
        fit=pictures.fit or "stretch",
        interpolation=pictures.interpolation or "bicubic",
        sigmoid="logit_bias" in state,
    )


def _text(text: Mapping[str, Any], file: Path) -> TextConfig:
    tokenizer = find_tokenizer(file.parent, (JSON, "spiece.model"))
    return TextConfig(
        vocabulary=_field(text, "vocab_size", 32000, file),
        context_length=_field(text, "max_position_embeddings", 64, file),
        channels=_field(text, "hidden_size", 768, file),
        depth=_field(text, "num_hidden_layers", 12, file),
        heads=_field(text, "num_attention_heads", 12, file),
        activation=_activation(text, file),
        causal=False,
        pool="last",
        pad_id=pad_id(tokenizer, 1),
        mlp_width=_field(text, "intermediate_size", 3072, file),
        norm_eps=number(text.get("layer_norm_eps", 1e-6), file),
        projection_bias=True,
        tokenizer_file=str(tokenizer),
        cleaning=_cleaning(tokenizer),
    )


def _cleaning(tokenizer: Path) -> Cleaning:
    """SigLIP's tokenizer removes punctuation; that of SigLIP 2 lower-cases letters only."""
    settings = read_tokenizer_config(tokenizer.parent)
    if str(settings.get("tokenizer_class", "SiglipTokenizer")).startswith("SiglipTokenizer"):
        if settings.get("do_lower_case", True) is not True:
            return Cleaning(omit=string.punctuation, repair=False, lower=False)
        return HF_SIGLIP_CLEANING
    if tokenizer.name == JSON and lower_cases(tokenizer):
        return NO_CLEANING
    return Cleaning(repair=False, collapse=False)


def _field(settings: Mapping[str, Any], name: str, default: int, file: Path) -> int:
    return whole(settings.get(name, default), file)


def _activation(settings: Mapping[str, Any], file: Path) -> Activation:
    stated = {"hidden_act": settings.get("hidden_act", "gelu_pytorch_tanh")}
    activation: Activation = choice(stated, "hidden_act", _ACTIVATIONS, file)
    return activation
