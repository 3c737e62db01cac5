"""Configuration of a CLIP that its tensors do not tell: activation, heads, normalisation.

The tensors of a CLIP tell most of its sizes, but neither its activation nor its number of heads.
Weights load into towers with another activation or other heads without an error, and search then
gets slightly worse. The values of OpenAI's archives are known. open_clip and Hugging Face write a
JSON file next to the weights.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.models.text_tower import ClipTextTower
from finegrain.models.transformer import Activation
from finegrain.preprocess import Fit, Interpolation

OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Additional entries by which OpenAI's archives are recognised."""

OPEN_CLIP, HUGGING_FACE = "open_clip_config.json", "config.json"
HF_PREPROCESSOR = "preprocessor_config.json"
MAX_BYTES = 1 << 20
HEAD_WIDTH = 64
"""Channels per attention head of OpenAI's models, and the default of open_clip's."""

QUICK = ("quickgelu", "quick_gelu", "quick-gelu")
"""A model name that contains one of these was trained with QuickGELU."""

_FIXED: Mapping[str, Mapping[str, Any]] = {
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

_INTERPOLATIONS: Mapping[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    # Training draws a random interpolation; evaluation uses bicubic.
    "random": "bicubic",
}

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
            stacklevel=3,
        )


def _heads(vector: Tensor | None) -> int | None:
    """Number of heads of a tower, from a vector as wide as the tower."""
    return None if vector is None else vector.shape[0] // HEAD_WIDTH or None


def _is_quick(name: str) -> bool:
    return any(word in name.lower() for word in QUICK)


def _open_clip(file: Path) -> KnownClip | None:
    values = _read(file)
    model = _part(values, "model_cfg", file) if "model_cfg" in values else values
    if "vision_cfg" not in model or "text_cfg" not in model:
        return None
    vision, text = _part(model, "vision_cfg", file), _part(model, "text_cfg", file)
    for part, settings in (("vision_cfg", vision), ("text_cfg", text)):
        for name, expected in _FIXED[part].items():
            # An empty table of arguments equals the default.
            if settings.get(name, expected) not in (expected, {}):
                raise WeightsError(
                    f"{file} says {part}.{name} = {settings[name]!r}, and finegrain's CLIP towers "
                    f"support {expected!r} only; this model cannot be loaded"
                )
    named = (values.get("architecture"), values.get("name"), file.parent.name)
    quick = model.get("quick_gelu", any(_is_quick(str(name)) for name in named))
    width, head = vision.get("width", 768), vision.get("head_width", HEAD_WIDTH)
    config = KnownClip(
        source=str(file),
        activation="quick_gelu" if quick else "gelu",
        image_heads=_whole(width, file) // max(1, _whole(head, file)),
        text_heads=_whole(text.get("heads", 8), file),
        size=_size(vision.get("image_size", 224), file),
    )
    preprocess = _part(values, "preprocess_cfg", file) if "preprocess_cfg" in values else {}
    fit = _choice(preprocess, "resize_mode", {"shortest": "crop", "squash": "stretch"}, file)
    interpolation = _choice(preprocess, "interpolation", _INTERPOLATIONS, file)
    config = replace(config, fit=fit, interpolation=interpolation)
    return replace(config, **_normalisation(preprocess, "mean", "std", file))


def _hugging_face(file: Path) -> KnownClip | None:
    values = _read(file)
    if "vision_config" not in values or "text_config" not in values:
        return None
    kind = values.get("model_type", "clip")
    if kind != "clip":
        raise WeightsError(f"{file} describes a model of type {kind!r}; expected 'clip'")
    vision, text = _part(values, "vision_config", file), _part(values, "text_config", file)
    activations = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
    if activations not in ({"gelu"}, {"quick_gelu"}):
        raise WeightsError(
            f"{file} says hidden_act {' and '.join(map(repr, sorted(map(str, activations))))}; "
            "expected gelu or quick_gelu, the same for both towers"
        )
    for part in (vision, text):
        if part.get("layer_norm_eps", 1e-5) != 1e-5:
            raise WeightsError(
                f"{file} says layer_norm_eps {part['layer_norm_eps']!r}; finegrain's CLIP towers "
                "have 1e-5"
            )
    config = KnownClip(
        source=str(file),
        activation="gelu" if activations == {"gelu"} else "quick_gelu",
        image_heads=_whole(vision.get("num_attention_heads", 12), file),
        text_heads=_whole(text.get("num_attention_heads", 8), file),
        size=_size(vision.get("image_size", 224), file),
    )
    second_file = file.with_name(HF_PREPROCESSOR)
    preprocess = _read(second_file) if second_file.is_file() else {}
    fit = _choice(preprocess, "do_center_crop", {True: "crop", False: "stretch"}, second_file)
    interpolation = _choice(preprocess, "resample", {2: "bilinear", 3: "bicubic"}, second_file)
    config = replace(config, fit=fit, interpolation=interpolation)
    return replace(config, **_normalisation(preprocess, "image_mean", "image_std", second_file))


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
        values = json.loads(text) if len(text) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"expected an object of at most {MAX_BYTES} bytes of JSON in {file}")
    return values


def _part(values: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    part = values[name]
    if not isinstance(part, dict):
        raise WeightsError(f"expected {name} as an object in {file}, got {part!r:.60}")
    return part


def _whole(value: Any, file: Path) -> int:
    if type(value) is not int or value < 1:
        raise WeightsError(f"expected a whole number above 0 in {file}, got {value!r:.60}")
    return value


def _size(value: Any, file: Path) -> tuple[int, int]:
    height, width = value if isinstance(value, list) and len(value) == 2 else (value, value)
    return _whole(height, file), _whole(width, file)


def _choice(settings: Mapping[str, Any], name: str, known: Mapping[Any, Any], file: Path) -> Any:
    """Translate a value of the file to finegrain's name; None if the file has no such value.

    Raises:
        WeightsError: finegrain does not support this way of resizing.
    """
    value = settings.get(name)
    if value is None:
        return None
    if not isinstance(value, str | int) or value not in known:
        raise WeightsError(
            f"{file} says {name} = {value!r:.60}, and finegrain resizes pictures for it only by "
            f"{', '.join(map(repr, known))}: give a recipe by --recipe"
        )
    return known[value]


def _normalisation(settings: Mapping[str, Any], mean: str, std: str, file: Path) -> dict[str, Any]:
    fields = {"mean": settings.get(mean), "std": settings.get(std)}
    for name, values in fields.items():
        if values is None:
            continue
        least = 0.0 if name == "mean" else 1e-6
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(type(v) in (int, float) and least <= v <= 1 for v in values)
        ):
            raise WeightsError(
                f"expected {name} as three numbers from {least} to 1 in {file}, got {values!r:.60}"
            )
        fields[name] = tuple(map(float, values))
    return fields
