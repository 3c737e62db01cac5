"""Models of open_clip with a backbone of timm, or with a text tower other than CLIP's.

Among them are SigLIP and SigLIP 2, MobileCLIP and MobileCLIP2, Marqo's FashionSigLIP, and models
with XLM-R as their text tower. Their ``open_clip_config.json`` is needed to build them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from finegrain.errors import WeightsError, require
from finegrain.models import BertTextConfig, ImageConfig, TextConfig, TimmConfig, VitConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.models.transformer import Activation
from finegrain.preprocess import Cleaning
from finegrain.preprocess.cleaning import CLIP_CLEANING, SIGLIP_CLEANING
from finegrain.zoo import openai_clip
from finegrain.zoo.bert_tower import ROBERTA_OFFSET, bert_sizes, convert_bert
from finegrain.zoo.clip_config import FIXED, OPEN_CLIP, OPEN_CLIP_FILTER, OPEN_CLIP_FIT
from finegrain.zoo.description import Description
from finegrain.zoo.json_file import (
    choice,
    normalisation,
    number,
    only,
    part,
    read_json,
    size,
    whole,
)
from finegrain.zoo.renaming import rename
from finegrain.zoo.tokenizer_files import find_tokenizer, pad_id

TRUNK, BERT = "visual.trunk.", "text.transformer.embeddings."
MARKS = (TRUNK, BERT, "text.text_projection.weight")
"""Name prefixes that plain CLIPs do not have."""

_BERT = "text.transformer."
THEIRS_TO_OURS = {
    "visual.trunk.{}": "image_tower.backbone.{}",
    "visual.head.proj.{}": "image_tower.proj.{}",
    "visual.head.mlp.{}": "image_tower.proj.{}",
    "text.text_projection.bias": "text_tower.projection_bias",
    "text.text_projection.weight": "text_tower.text_projection",
    "text.proj.{}": "text_tower.proj.{}",
    "logit_bias": "logit_bias",
    "logit_scale": "logit_scale",
    **{
        f"text.{theirs}": ours
        for theirs, ours in openai_clip.THEIRS_TO_OURS.items()
        if ours.startswith("text_tower.")
    },
    "visual.{}": "image_tower.{}",
}
IGNORE = ("attn_mask", "text.attn_mask")
TRANSPOSED = "text_tower.text_projection"

CLEANINGS = {
    "canonicalize": SIGLIP_CLEANING,
    "lower": CLIP_CLEANING,
    "whitespace": Cleaning(lower=False),
}
"""open_clip's names of text cleaning."""

MOBILECLIP2 = {
    "mobileclip2_s0": "MobileCLIP2-S0",
    "mobileclip2_s2": "MobileCLIP2-S2",
    "mobileclip2_b": "MobileCLIP2-B",
    "mobileclip2_s3": "MobileCLIP2-S3",
    "mobileclip2_s4": "MobileCLIP2-S4",
}
"""Apple's names of files that have no configuration beside them, and open_clip's names."""

_TEXT_ONLY: Mapping[str, Any] = {
    "ls_init_value": None,
    "embed_cls": False,
    "final_ln_after_pool": False,
    "proj_type": "linear",
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "tokenizer_mode": None,
}
_POOLS = {"argmax": "end", "last": "last"}
_BERT_POOLS = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of open_clip's ``CustomTextCLIP`` to finegrain's names.

    Raises:
        WeightsError: A name is unknown.
    """
    is_bert = any(name.startswith(BERT) for name in state)
    bert = {n.removeprefix(_BERT): t for n, t in state.items() if is_bert and n.startswith(_BERT)}
    rest = {name: t for name, t in state.items() if not (is_bert and name.startswith(_BERT))}
    converted = rename(rest, THEIRS_TO_OURS, IGNORE)
    if "text.text_projection.weight" in state:
        converted[TRANSPOSED] = converted[TRANSPOSED].T
    return converted | convert_bert(bert, offset=ROBERTA_OFFSET)


def describe(file: Path, state: Mapping[str, Tensor]) -> Description:
    """Describe a model by the ``open_clip_config.json`` next to its weights.

    Args:
        file: The weight file.
        state: Its tensors, which tell the sizes of a BERT.

    Raises:
        WeightsError: The configuration or the tokenizer is missing or damaged, or a tower is of
            a kind that finegrain does not support.
    """
    config_file = file.with_name(OPEN_CLIP)
    values = read_json(config_file) if config_file.is_file() else _own_configuration(file)
    model = part(values, "model_cfg", config_file)
    vision, text = part(model, "vision_cfg", config_file), part(model, "text_cfg", config_file)
    preprocess = part(values, "preprocess_cfg", config_file) if "preprocess_cfg" in values else {}
    quick = model.get("quick_gelu", False) is True
    activation: Activation = "quick_gelu" if quick else "gelu"
    is_bert = text.get("hf_model_name") is not None
    return Description(
        image=_image(vision, preprocess, activation, config_file),
        text=_bert(text, state, config_file) if is_bert else _text(text, activation, config_file),
        embed_dim=whole(model.get("embed_dim"), config_file),
        fit=choice(preprocess, "resize_mode", OPEN_CLIP_FIT, config_file) or "crop",
        interpolation=choice(preprocess, "interpolation", OPEN_CLIP_FILTER, config_file)
        or "bicubic",
        sigmoid="logit_bias" in state,
    )


def _own_configuration(file: Path) -> Mapping[str, Any]:
    """The configuration that open_clip itself has for a file of Apple's, by the file's name."""
    name = MOBILECLIP2.get(file.stem.lower())
    if name is None:
        raise WeightsError(
            f"{file} is a model of open_clip whose towers are not CLIP's, and only its "
            f"{OPEN_CLIP} tells which they are. Put that file from its repository next to it. "
            f"Without it, finegrain reads Apple's files {', '.join(MOBILECLIP2)} (.pt)"
        )
    open_clip = require("open_clip", "train")
    pictures = open_clip.get_pretrained_cfg(name, "dfndr2b")
    return {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": {
            "mean": [*pictures["mean"]],
            "std": [*pictures["std"]],
            "interpolation": pictures["interpolation"],
            "resize_mode": pictures["resize_mode"],
        },
    }


def _image(
    vision: Mapping[str, Any], preprocess: Mapping[str, Any], activation: Activation, file: Path
) -> ImageConfig:
    height, width = size(vision.get("image_size", 224), file)
    stated = normalisation(preprocess, "mean", "std", file)
    mean, std = stated["mean"] or CLIP_MEAN, stated["std"] or CLIP_STD
    name = vision.get("timm_model_name")
    if name is not None:
        pool = vision.get("timm_pool", "avg") or None
        if pool in ("abs_attn", "rot_attn"):
            raise WeightsError(
                f"{file} says timm_pool = {pool!r}; finegrain supports the pools of timm's own "
                "models only"
            )
        projections = {"linear": "linear", "mlp": "mlp", "none": "none", "": "classifier"}
        projection = vision.get("timm_proj", "linear") or ""
        return TimmConfig(
            model=str(name),
            height=height,
            width=width,
            pool=pool,
            projection=choice({"timm_proj": projection}, "timm_proj", projections, file),
            projection_bias=vision.get("timm_proj_bias", False) is True,
            mean=mean,
            std=std,
        )
    supported = {**FIXED["vision_cfg"], "mlp_ratio": 4.0, "ls_init_value": None}
    only(vision, supported, f"{file} says vision_cfg")
    channels = whole(vision.get("width", 768), file)
    return VitConfig(
        height=height,
        width=width,
        patch=whole(vision.get("patch_size", 16), file),
        channels=channels,
        depth=whole(vision.get("layers", 12), file),
        heads=max(1, channels // whole(vision.get("head_width", 64), file)),
        activation=activation,
        mean=mean,
        std=std,
    )


def _text(text: Mapping[str, Any], activation: Activation, file: Path) -> TextConfig:
    only(text, _TEXT_ONLY, f"{file} says text_cfg")
    arguments = text.get("act_kwargs") or {}
    if arguments not in ({}, {"approximate": "tanh"}) or (arguments and activation != "gelu"):
        raise WeightsError(f"{file} says text_cfg.act_kwargs = {arguments!r:.60}; expected tanh")
    norm = part(text, "norm_kwargs", file) if text.get("norm_kwargs") else {}
    channels = whole(text.get("width", 512), file)
    ratio = number(text.get("mlp_ratio", 4.0), file)
    tokenizer, cleaning = _tokenizer(text, file, "lower")
    return TextConfig(
        vocabulary=whole(text.get("vocab_size", 49408), file),
        context_length=whole(text.get("context_length", 77), file),
        channels=channels,
        depth=whole(text.get("layers", 12), file),
        heads=whole(text.get("heads", 8), file),
        activation="gelu_tanh" if arguments else activation,
        causal=text.get("no_causal_mask", False) is not True,
        pool=choice({"pool_type": text.get("pool_type", "argmax")}, "pool_type", _POOLS, file),
        pad_id=0 if tokenizer is None else pad_id(tokenizer, 0),
        mlp_width=None if ratio == 4 else int(channels * ratio),
        norm_eps=number(norm.get("eps", 1e-5), file),
        projection_bias=text.get("proj_bias", False) is True,
        tokenizer_file=None if tokenizer is None else str(tokenizer),
        cleaning=cleaning,
    )


def _bert(text: Mapping[str, Any], state: Mapping[str, Tensor], file: Path) -> BertTextConfig:
    name = str(text["hf_model_name"])
    if "roberta" not in name.lower():
        raise WeightsError(
            f"{file} says text_cfg.hf_model_name = {name!r:.60}; of Hugging Face's text towers "
            "finegrain supports RoBERTa and XLM-R"
        )
    pool = {"pool": text.get("hf_pooler_type", "mean_pooler")}
    projection = {"projection": text.get("hf_proj_type", "mlp")}
    tokenizer, cleaning = _tokenizer({"hf_tokenizer_name": name, **text}, file, "whitespace")
    return BertTextConfig(
        **bert_sizes(convert(state)),
        context_length=whole(text.get("context_length", 77), file),
        norm_eps=1e-5,
        pool=choice(pool, "pool", _BERT_POOLS, file),
        projection=choice(projection, "projection", {"mlp": "mlp", "linear": "linear"}, file),
        tokenizer_file=str(tokenizer),
        cleaning=cleaning,
    )


def _tokenizer(text: Mapping[str, Any], file: Path, clean: str) -> tuple[Path | None, Cleaning]:
    """The tokenizer file, which is None for CLIP's, and the cleaning of captions."""
    arguments = text.get("tokenizer_kwargs") or {}
    if not isinstance(arguments, dict) or not arguments.keys() <= {"clean"}:
        raise WeightsError(
            f"{file} says text_cfg.tokenizer_kwargs = {arguments!r:.60}; finegrain supports the "
            "argument clean only"
        )
    own = text.get("hf_tokenizer_name") is not None
    clean = arguments.get("clean", "whitespace" if own else clean)
    cleaning = choice({"clean": clean}, "clean", CLEANINGS, file)
    return find_tokenizer(file.parent) if own else None, cleaning
