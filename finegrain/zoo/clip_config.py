"""What is stated about a CLIP's towers beside its tensors: activation, heads, normalisation.

Tensors tell most sizes of a CLIP, but neither its activation nor its number of heads: a file
loads into towers that differ in these without an error, and searches a little worse. OpenAI's
own archives are known; open_clip and Hugging Face write a JSON file beside the weights.
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
from finegrain.models.text_tower import TextTower
from finegrain.models.transformer import Activation
from finegrain.preprocess import Fit, Interpolation

OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What OpenAI's archives hold beside the weights."""

OPEN_CLIP, HUGGING_FACE = "open_clip_config.json", "config.json"
HF_PREPROCESSOR = "preprocessor_config.json"
MAX_BYTES = 1 << 20
HEAD_WIDTH = 64
"""Of OpenAI's models, and of open_clip's unless its file states another."""

QUICK = ("quickgelu", "quick_gelu", "quick-gelu")
"""By which the name of a model says that it was trained with QuickGELU."""

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
"""Settings of open_clip's towers that finegrain's have at one value only."""

_INTERPOLATIONS: Mapping[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    # Only training draws one.
    "random": "bicubic",
}

ACTIVATION_UNKNOWN = "nothing says which activation"
"""How the warning about it begins."""

ACTIVATION_ADVICE = (
    "OpenAI's models and those with 'quickgelu' in their name have quick_gelu, other models of "
    "open_clip have gelu: --set method.image.activation=gelu --set method.text.activation=gelu, "
    "or put the open_clip_config.json of the model beside the file"
)


@dataclass(frozen=True, kw_only=True)
class KnownClip:
    """What is known of a CLIP beside its tensors; None where nothing says.

    Attributes:
        source: What said so, for messages.
        activation: Of both towers.
        image_heads, text_heads: Attention heads.
        size: Height and width of pictures.
        mean, std: What pixels in 0..1 are normalised with, RGB.
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
    """What is known of the weight file ``path`` beside its tensors ``state``.

    In order: OpenAI's own archive; the JSON of the layout beside the file; that of the other
    layout; the name of the file or of its folder where it says ``quickgelu``.

    Raises:
        WeightsError: A JSON file is damaged, or describes towers that finegrain has not.
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
            stated = readers[file_name](file)
            if stated is not None:
                return stated
    named = next((n for n in (path.name, path.parent.name) if _is_quick(n)), None)
    if named is not None:
        return KnownClip(source=f"the name {named}", activation="quick_gelu")
    return KnownClip()


def check_known(model: nn.Module, known: KnownClip, file: Path) -> None:
    """Compare with the towers of a model what no tensor of ``file`` tells.

    Where nothing is known of the activation, a warning says which one is taken.

    Raises:
        WeightsError: A tower has another activation, or another number of heads.
    """
    image, text = model.get_submodule("image_tower"), model.get_submodule("text_tower")
    if not isinstance(image, VisionTransformer) or not isinstance(text, TextTower):
        return  # the weights will not fit, and that error says more
    for side, tower, heads in (
        ("image", image, known.image_heads),
        ("text", text, known.text_heads),
    ):
        for name, stated in (("activation", known.activation), ("heads", heads)):
            own = getattr(tower.transformer, name)
            if stated is not None and stated != own:
                raise WeightsError(
                    f"{known.source} says that {file} has {name} {stated}, and the model's {side} "
                    f"tower has {own}: --set method.{side}.{name}={stated}"
                )
    if known.activation is None:
        warnings.warn(
            f"{ACTIVATION_UNKNOWN} {file} was trained with; the recipe's "
            f"{image.transformer.activation} is taken. {ACTIVATION_ADVICE}",
            stacklevel=3,
        )


def _heads(of_its_width: Tensor | None) -> int | None:
    return None if of_its_width is None else of_its_width.shape[0] // HEAD_WIDTH or None


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
            # An empty table of arguments changes nothing.
            if settings.get(name, expected) not in (expected, {}):
                raise WeightsError(
                    f"{file} says {part}.{name} = {settings[name]!r}, and finegrain's CLIP towers "
                    f"have {expected!r} only; this model cannot be read"
                )
    named = (values.get("architecture"), values.get("name"), file.parent.name)
    quick = model.get("quick_gelu", any(_is_quick(str(name)) for name in named))
    width, head = vision.get("width", 768), vision.get("head_width", HEAD_WIDTH)
    stated = KnownClip(
        source=str(file),
        activation="quick_gelu" if quick else "gelu",
        image_heads=_whole(width, file) // max(1, _whole(head, file)),
        text_heads=_whole(text.get("heads", 8), file),
        size=_size(vision.get("image_size", 224), file),
    )
    shown = _part(values, "preprocess_cfg", file) if "preprocess_cfg" in values else {}
    fit = _choice(shown, "resize_mode", {"shortest": "crop", "squash": "stretch"}, file)
    interpolation = _choice(shown, "interpolation", _INTERPOLATIONS, file)
    resized = replace(stated, fit=fit, interpolation=interpolation)
    return replace(resized, **_normalisation(shown, "mean", "std", file))


def _hugging_face(file: Path) -> KnownClip | None:
    values = _read(file)
    if "vision_config" not in values or "text_config" not in values:
        return None
    kind = values.get("model_type", "clip")
    if kind != "clip":
        raise WeightsError(f"{file} is of a model of type {kind!r}; expected 'clip'")
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
    stated = KnownClip(
        source=str(file),
        activation="gelu" if activations == {"gelu"} else "quick_gelu",
        image_heads=_whole(vision.get("num_attention_heads", 12), file),
        text_heads=_whole(text.get("num_attention_heads", 8), file),
        size=_size(vision.get("image_size", 224), file),
    )
    beside = file.with_name(HF_PREPROCESSOR)
    shown = _read(beside) if beside.is_file() else {}
    fit = _choice(shown, "do_center_crop", {True: "crop", False: "stretch"}, beside)
    interpolation = _choice(shown, "resample", {2: "bilinear", 3: "bicubic"}, beside)
    resized = replace(stated, fit=fit, interpolation=interpolation)
    return replace(resized, **_normalisation(shown, "image_mean", "image_std", beside))


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


def _choice(shown: Mapping[str, Any], name: str, known: Mapping[Any, Any], file: Path) -> Any:
    """Our word for a value of the file; None where it states none.

    Raises:
        WeightsError: Pictures cannot be resized so.
    """
    value = shown.get(name)
    if value is None:
        return None
    if not isinstance(value, str | int) or value not in known:
        raise WeightsError(
            f"{file} says {name} = {value!r:.60}, and finegrain resizes pictures for it only by "
            f"{', '.join(map(repr, known))}: give a recipe by --recipe"
        )
    return known[value]


def _normalisation(shown: Mapping[str, Any], mean: str, std: str, file: Path) -> dict[str, Any]:
    given = {"mean": shown.get(mean), "std": shown.get(std)}
    for name, values in given.items():
        if values is None:
            continue
        least = 0.0 if name == "mean" else 1e-6
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(type(v) in (int, float) and least <= v <= 1 for v in values)
        ):
            raise WeightsError(f"expected {name} as three numbers in {file}, got {values!r:.60}")
        given[name] = tuple(map(float, values))
    return given
