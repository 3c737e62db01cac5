"""Configuration of a CLIP that its tensors do not tell: activation, heads, normalisation.

The tensors of a CLIP tell most of its sizes, but neither its activation nor its number of heads.
Weights load into towers with another activation or other heads without an error, and search then
gets slightly worse. The values of OpenAI's archives are known. open_clip and Hugging Face write a
JSON file next to the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from finegrain.errors import FinegrainWarning, WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.models.text_tower import ClipTextTower
from finegrain.models.transformer import Activation
from finegrain.preprocess import Fit, Interpolation
from finegrain.zoo.hf_preprocessor import read_hf_preprocessor
from finegrain.zoo.json_file import choice, normalisation, only, part, read_json, size, whole

OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Additional entries by which OpenAI's archives are recognised."""

OPEN_CLIP, HUGGING_FACE = "open_clip_config.json", "config.json"
HEAD_WIDTH = 64
"""Channels per attention head of OpenAI's models, and the default of open_clip's."""

QUICK = ("quickgelu", "quick_gelu", "quick-gelu")
"""A model name that contains one of these was trained with QuickGELU."""

FIXED: Mapping[str, Mapping[str, Any]] = {
    "vision_cfg": {
        "timm_model_name": None,
        "attentional_pool": False,
        "no_ln_pre": False,
        "final_ln_after_pool": False,
        "global_average_pool": False,
        "pool_type": "tok",
        "act_kwargs": None,
        "norm_kwargs": None,
        "scaled_cosine_attn": False,
    },
    "text_cfg": {
        "hf_model_name": None,
        "hf_tokenizer_name": None,
        "tokenizer_kwargs": None,
        "no_causal_mask": False,
        "final_ln_after_pool": False,
        "pool_type": "argmax",
        "act_kwargs": None,
        "norm_kwargs": None,
        "scaled_cosine_attn": False,
    },
}
"""Settings of open_clip's towers for which finegrain supports one value only."""

OPEN_CLIP_FIT: Mapping[str, Fit] = {"shortest": "crop", "squash": "stretch"}
OPEN_CLIP_FILTER: Mapping[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    # Training draws a random interpolation; evaluation uses bicubic.
    "random": "bicubic",
}
"""open_clip's names of ways to resize, and finegrain's."""

ACTIVATION_UNKNOWN = "no configuration states which activation"
"""Start of the warning and of the error about an unknown activation."""

ACTIVATION_ADVICE = (
    "OpenAI's models and those with 'quickgelu' in their name have quick_gelu, other models of "
    "open_clip have gelu: --set method.image.activation=gelu --set method.text.activation=gelu, "
    "or put the open_clip_config.json of the model next to the file"
)


@dataclass(frozen=True, kw_only=True)
class KnownClip:
    """Configuration of a CLIP; a field is None if it is unknown.

    Attributes:
        source: Where the configuration comes from, for messages.
        activation: Activation of both towers.
        image_heads, text_heads: Number of attention heads.
        size: Height and width of pictures, in pixels.
        mean, std: Normalisation of pixels in 0..1, RGB.
        fit, interpolation: How a picture is resized.
    """

    source: str | None = None
    activation: Activation | None = None
    image_heads: int | None = None
    text_heads: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    fit: Fit | None = None
    interpolation: Interpolation | None = None


def read_clip_config(
    path: Path, state: Mapping[str, Tensor], layout: Literal["openai_clip", "hf_clip"]
) -> KnownClip:
    """Read the configuration of a CLIP from the first source that has one.

    The sources are, in this order: OpenAI's own archive; the JSON file of the layout next to the
    weights; the JSON file of the other layout; a file or folder name with ``quickgelu``.

    Args:
        path: The weight file.
        state: Its tensors.
        layout: Its layout.

    Returns:
        The configuration; all fields are None if there is no source.

    Raises:
        WeightsError: A JSON file is damaged, or describes towers that finegrain does not
            support.
    """
    if state.keys() >= OPENAI:
        return KnownClip(
            source="OpenAI's archive",
            activation="quick_gelu",
            image_heads=_heads(state.get("visual.class_embedding")),
            text_heads=_heads(state.get("ln_final.weight")),
        )
    readers = {OPEN_CLIP: _open_clip, HUGGING_FACE: _hugging_face}
    for file_name in readers if layout == "openai_clip" else reversed(readers):
        file = path.parent / file_name
        if file.is_file():
            config = readers[file_name](file)
            if config is not None:
                return config
    named = next((n for n in (path.name, path.parent.name) if _is_quick(n)), None)
    if named is not None:
        return KnownClip(source=f"the name {named}", activation="quick_gelu")
    return KnownClip()


def check_known(model: nn.Module, known: KnownClip, file: Path) -> None:
    """Compare the configuration of a weight file with the towers of a model.

    If the activation is unknown, a warning names the activation that is used.

    Raises:
        WeightsError: A tower has another activation, or another number of heads.
    """
    image, text = model.get_submodule("image_tower"), model.get_submodule("text_tower")
    if not isinstance(image, VisionTransformer) or not isinstance(text, ClipTextTower):
        return  # the weights will not fit, and that error is more helpful
    for side, tower, heads in (
        ("image", image, known.image_heads),
        ("text", text, known.text_heads),
    ):
        for name, expected in (("activation", known.activation), ("heads", heads)):
            actual = getattr(tower.transformer, name)
            if expected is not None and expected != actual:
                raise WeightsError(
                    f"{known.source} says that {file} has {name} {expected}, and the model's "
                    f"{side} tower has {actual}: --set method.{side}.{name}={expected}"
                )
    if known.activation is None:
        warnings.warn(
            f"{ACTIVATION_UNKNOWN} {file} was trained with; the recipe's "
            f"{image.transformer.activation} is used. {ACTIVATION_ADVICE}",
            FinegrainWarning,
            stacklevel=3,
        )


def _heads(vector: Tensor | None) -> int | None:
    """Number of heads of a tower, from a vector as wide as the tower."""
    return None if vector is None else vector.shape[0] // HEAD_WIDTH or None


def _is_quick(name: str) -> bool:
    return any(word in name.lower() for word in QUICK)


def _open_clip(file: Path) -> KnownClip | None:
    values = read_json(file)
    model = part(values, "model_cfg", file) if "model_cfg" in values else values
    if "vision_cfg" not in model or "text_cfg" not in model:
        return None
    vision, text = part(model, "vision_cfg", file), part(model, "text_cfg", file)
    for tower, settings in (("vision_cfg", vision), ("text_cfg", text)):
        only(settings, FIXED[tower], f"{file} says {tower}")
    named = (values.get("architecture"), values.get("name"), file.parent.name)
    quick = model.get("quick_gelu", any(_is_quick(str(name)) for name in named))
    width, head = vision.get("width", 768), vision.get("head_width", HEAD_WIDTH)
    config = KnownClip(
        source=str(file),
        activation="quick_gelu" if quick else "gelu",
        image_heads=whole(width, file) // max(1, whole(head, file)),
        text_heads=whole(text.get("heads", 8), file),
        size=size(vision.get("image_size", 224), file),
    )
    preprocess = part(values, "preprocess_cfg", file) if "preprocess_cfg" in values else {}
    fit = choice(preprocess, "resize_mode", OPEN_CLIP_FIT, file)
    interpolation = choice(preprocess, "interpolation", OPEN_CLIP_FILTER, file)
    config = replace(config, fit=fit, interpolation=interpolation)
    return replace(config, **normalisation(preprocess, "mean", "std", file))


def _hugging_face(file: Path) -> KnownClip | None:
    values = read_json(file)
    if "vision_config" not in values or "text_config" not in values:
        return None
    kind = values.get("model_type", "clip")
    if kind != "clip":
        raise WeightsError(f"{file} describes a model of type {kind!r}; expected 'clip'")
    vision, text = part(values, "vision_config", file), part(values, "text_config", file)
    activations = [tower.get("hidden_act", "quick_gelu") for tower in (vision, text)]
    if activations not in (["gelu"] * 2, ["quick_gelu"] * 2):
        raise WeightsError(
            f"{file} says hidden_act {' and '.join(f'{a!r:.60}' for a in activations)}; "
            "expected gelu or quick_gelu, the same for both towers"
        )
    for tower in (vision, text):
        if tower.get("layer_norm_eps", 1e-5) != 1e-5:
            raise WeightsError(
                f"{file} says layer_norm_eps {tower['layer_norm_eps']!r}; finegrain's CLIP towers "
                "have 1e-5"
            )
    config = KnownClip(
        source=str(file),
        activation="gelu" if "gelu" in activations else "quick_gelu",
        image_heads=whole(vision.get("num_attention_heads", 12), file),
        text_heads=whole(text.get("num_attention_heads", 8), file),
        size=size(vision.get("image_size", 224), file),
    )
    stated = read_hf_preprocessor(file.parent)
    return replace(
        config,
        size=stated.size or config.size,
        fit=stated.fit,
        interpolation=stated.interpolation,
        mean=stated.mean,
        std=stated.std,
    )
