"""The preprocessing of a published pair, from its configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import processors

from finegrain.bounded.file import read_bounded
from finegrain.errors import ExportError, ImageError, PlanError
from finegrain.exporters.onnx_pair.files import MAX_TOKENIZER_BYTES, PairFiles, read_config
from finegrain.plan import MAX_SIZE
from finegrain.preprocess import Cleaning, Fit, ImageTransform, Interpolation, Tokenizer
from finegrain.preprocess.cleaning import SIGLIP_CLEANING
from finegrain.preprocess.text import parse_tokenizer

MASK, TYPES = "attention_mask", "token_type_ids"
"""Inputs that a text tower may have besides the ids."""

OPEN_CLIP_PICTURES = "preprocess_cfg.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_OPEN_CLIP_FITS: Mapping[str, Fit] = {"shortest": "crop", "squash": "stretch"}
_NAMED: Mapping[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    # Training draws a random interpolation; evaluation uses bicubic.
    "random": "bicubic",
}
_NUMBERED: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow's filters."""

_CONTEXTS = {"clip": 77, "siglip": 64, "siglip2": 64}
"""Context lengths that transformers does not write into a configuration, as they are defaults."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How pictures become the input of an image tower.

    Attributes:
        transform: Resizes a picture.
        mean, std: Normalisation of pixels from 0 to ``1 / rescale / 255``.
        rescale: Factor of the bytes before the normalisation.
    """

    transform: ImageTransform
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float = 1 / 255

    def scale_and_offset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Factor and summand of the bytes, float32 ``[3]`` each."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (self.rescale / std).astype(np.float32), (-mean / std).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Captions:
    """How captions become the input of a text tower.

    Attributes:
        tokenizer: Cleans a caption and splits it into ids.
        pad_id: The id that fills a caption up; None if the configuration states none.
    """

    tokenizer: Tokenizer
    pad_id: int | None


def is_pooled(files: PairFiles) -> bool:
    """Whether the pooled output of a tower is its embedding, as in SigLIP."""
    if files.layout == "immich":
        return False
    model_type = read_config(files.folder / "config.json").get("model_type")
    return isinstance(model_type, str) and model_type.startswith("siglip")


def read_pixels(files: PairFiles) -> Pixels:
    """Read how pictures are prepared.

    Raises:
        ExportError: The configuration is missing or damaged, or pictures are resized in a way
            that a plan cannot express.
    """
    if files.layout == "immich":
        return _open_clip_pixels(files.image.with_name(OPEN_CLIP_PICTURES))
    file = files.folder / PREPROCESSOR
    values: Any = read_config(file)
    if not values:
        file = files.folder / PROCESSOR
        values = read_config(file).get("image_processor")
    if not isinstance(values, dict):
        raise _missing(files.folder / PREPROCESSOR)
    return _hugging_face_pixels(values, file)


def read_captions(files: PairFiles, *, fixed_length: int | None) -> Captions:
    """Read how captions are prepared.

    Args:
        files: The files of the pair.
        fixed_length: The only length that the text tower takes; None if it takes any.

    Raises:
        ExportError: The tokenizer or a configuration is missing or damaged, or does not fit the
            text tower.
    """
    data = read_bounded(files.tokenizer, MAX_TOKENIZER_BYTES, ExportError)
    settings = files.beside_tokenizer(TOKENIZER_CONFIG)
    context_length = _context_length(files, settings, fixed_length)
    try:
        pieces = parse_tokenizer(data.decode("utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise ExportError(
            f"{files.tokenizer} is not a file of the tokenizers library ({str(error)[:200]}). "
            "Get it from where the graphs come from."
        ) from error
    pad_id = _pad_id(pieces, settings)
    _add_stated_ends(pieces, settings)
    try:
        tokenizer = Tokenizer(
            pieces, context_length=context_length, cleaning=_cleaning(files, settings)
        )
    except PlanError as error:
        raise ExportError(f"{files.tokenizer}: {error}") from error
    return Captions(tokenizer=tokenizer, pad_id=pad_id)


def _open_clip_pixels(file: Path) -> Pixels:
    values = read_config(file)
    if not values:
        raise _missing(file)
    interpolation = _choice(values, "interpolation", _NAMED, file)
    fit = _choice({"resize_mode": "shortest", **values}, "resize_mode", _OPEN_CLIP_FITS, file)
    if values.get("mode", "RGB") != "RGB":
        raise ExportError(f"{file} says mode {values['mode']!r:.40}; expected 'RGB'")
    height, width = _size(values.get("size"), file)
    return Pixels(
        transform=_transform(height, width, fit, interpolation, file),
        mean=_three(values, "mean", file),
        std=_three(values, "std", file, above_zero=True),
    )


def _hugging_face_pixels(values: Mapping[str, Any], file: Path) -> Pixels:
    size, crop = values.get("size"), values.get("crop_size")
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if not isinstance(size, dict) and values.get("do_center_crop"):
        shortest = size  # written by old versions
    cropped = bool(values.get("do_center_crop"))
    if shortest is not None:
        height, width = _size(crop, file)
        if not cropped or not height == width == shortest:
            raise ExportError(
                f"{file} resizes the shorter side to {shortest!r:.40} and crops to {crop!r:.60}; "
                "expected a crop to a square of the same size, which is all that a plan can do"
            )
        fit: Fit = "crop"
    else:
        height, width = _size(size, file)
        if cropped and _size(crop, file) != (height, width):
            raise ExportError(
                f"{file} resizes to {size!r:.60} and then crops to {crop!r:.60}; expected no crop, "
                "or one of the same size"
            )
        fit = "stretch"
    normalised = values.get("do_normalize", True)
    return Pixels(
        transform=_transform(
            height,
            width,
            fit,
            _choice({"resample": 3, **values}, "resample", _NUMBERED, file),
            file,
        ),
        mean=_three(values, "image_mean", file) if normalised else (0.0, 0.0, 0.0),
        std=_three(values, "image_std", file, above_zero=True) if normalised else (1.0, 1.0, 1.0),
        rescale=_rescale(values, file),
    )


def _rescale(values: Mapping[str, Any], file: Path) -> float:
    if not values.get("do_rescale", True):
        return 1.0
    factor = values.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not 1e-6 < factor <= 1:
        raise ExportError(
            f"{file} says rescale_factor {factor!r:.40}; expected a number up to 1, such as 1/255"
        )
    return float(factor)


def _transform(
    height: int, width: int, fit: Fit, interpolation: Interpolation, file: Path
) -> ImageTransform:
    try:
        return ImageTransform(height=height, width=width, fit=fit, interpolation=interpolation)
    except ImageError as error:
        raise ExportError(f"{file}: {error}") from error


def _size(value: Any, file: Path) -> tuple[int, int]:
    """Height and width, from a number, a list of two, or an object."""
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    sizes = value if isinstance(value, list) and len(value) == 2 else [value, value]
    for size in sizes:
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise ExportError(
                f"{file} states a size of {value!r:.60}; expected whole numbers from 1 to "
                f"{MAX_SIZE}"
            )
    return sizes[0], sizes[1]


def _choice(values: Mapping[str, Any], name: str, known: Mapping[Any, Any], file: Path) -> Any:
    value = values.get(name)
    if not isinstance(value, str | int) or value not in known:
        raise ExportError(
            f"{file} says {name} = {value!r:.60}; a plan resizes pictures only by "
            f"{', '.join(map(repr, known))}"
        )
    return known[value]


def _three(
    values: Mapping[str, Any], name: str, file: Path, *, above_zero: bool = False
) -> tuple[float, ...]:
    numbers = values.get(name)
    least = 1e-6 if above_zero else 0.0
    if (
        not isinstance(numbers, list)
        or len(numbers) != 3
        or not all(type(n) in (int, float) and least <= n <= 255 for n in numbers)
    ):
        raise ExportError(f"expected {name} as three numbers in {file}, got {numbers!r:.60}")
    return tuple(map(float, numbers))


def _missing(file: Path) -> ExportError:
    return ExportError(
        f"{file} is not there or empty. It says how pictures are resized and normalised; get it "
        "from where the graphs come from."
    )


def _context_length(files: PairFiles, settings: Mapping[str, Any], fixed_length: int | None) -> int:
    """The longest caption in tokens, as the configurations and the text tower agree on it."""
    file = files.folder / "config.json"
    config = read_config(file)
    if files.layout == "immich":
        stated = _part(config, "text_cfg").get("context_length", 77)
    else:
        positions = _part(config, "text_config").get("max_position_embeddings")
        limits = (positions, settings.get("model_max_length"), fixed_length)
        # A tokenizer without a limit states an astronomic one.
        usable = [n for n in limits if type(n) is int and n <= MAX_SIZE]
        stated = min(usable, default=_CONTEXTS.get(str(config.get("model_type"))))
    if type(stated) is not int or not 3 <= stated <= MAX_SIZE:
        raise ExportError(
            f"{file} and {TOKENIZER_CONFIG} state a context length of {stated!r:.40}; expected a "
            f"whole number from 3 to {MAX_SIZE}: max_position_embeddings or model_max_length"
        )
    if fixed_length is not None and stated != fixed_length:
        raise ExportError(
            f"{files.text} takes captions of exactly {fixed_length} tokens, and the configuration "
            f"states a context length of {stated}. These files are not of one model."
        )
    return stated


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _pad_id(pieces: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> int | None:
    token = _token(settings, "pad_token")
    stated: int | None = None if token is None else pieces.token_to_id(token)
    padding = pieces.padding
    return padding["pad_id"] if stated is None and padding else stated


def _add_stated_ends(pieces: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Add the end token where only the configuration says so, as for Gemma's tokenizer."""
    if settings.get("add_eos_token") is not True or pieces.encode("").ids:
        return
    start = _token(settings, "bos_token") if settings.get("add_bos_token") is True else None
    end = _token(settings, "eos_token")
    specials = [(t, pieces.token_to_id(t)) for t in (start, end) if t is not None]
    if end is not None and all(id_ is not None for _, id_ in specials):
        pieces.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}" if start else f"$A {end}", special_tokens=specials
        )


def _token(settings: Mapping[str, Any], name: str) -> str | None:
    """A special token, which is a text or an object with its content."""
    token = settings.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _cleaning(files: PairFiles, settings: Mapping[str, Any]) -> Cleaning:
    """What happens to a caption before the tokenizer, which does the rest.

    open_clip repairs broken Unicode first, and transformers does not.
    """
    if files.layout == "hugging_face":
        lower = settings.get("do_lower_case") is True
        return Cleaning(repair=False, collapse=False, lower=lower)
    text = _part(read_config(files.folder / "config.json"), "text_cfg")
    canonical = _part(text, "tokenizer_kwargs").get("clean") == "canonicalize"
    return SIGLIP_CLEANING if canonical else Cleaning(lower=False)
