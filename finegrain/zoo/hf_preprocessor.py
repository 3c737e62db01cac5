"""The preprocessing of pictures in the layout of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import WeightsError
from finegrain.preprocess import Fit, Interpolation
from finegrain.zoo.json_file import choice, normalisation, only, read_json, whole

FILES = ("preprocessor_config.json", "processor_config.json")
"""The file of older versions, and that of newer versions, where it is one of several parts."""


@dataclass(frozen=True, kw_only=True)
class HfPreprocessor:
    """How pictures are preprocessed; a field is None if the files do not state it."""

    size: tuple[int, int] | None = None
    fit: Fit | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


def read_hf_preprocessor(folder: Path) -> HfPreprocessor:
    """Read the configuration of the image processor in a folder, if there is one.

    Raises:
        WeightsError: It is damaged, or pictures are resized in a way that finegrain does not
            support.
    """
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        return HfPreprocessor()
    settings = read_json(file)
    if isinstance(settings.get("image_processor"), dict):
        settings = settings["image_processor"]
    only(
        settings,
        {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False},
        f"{file} says ",
    )
    crops = choice(settings, "do_center_crop", {True: True, False: False}, file)
    size, keeps_ratio = _size(settings, "size", file)
    if crops:
        size = _same(size, _size(settings, "crop_size", file)[0], file)
    elif keeps_ratio and "do_center_crop" in settings:
        raise WeightsError(
            f"{file} says that pictures keep their ratio of sides and are not cropped, so they "
            "have no fixed size; finegrain cannot load this model"
        )
    return HfPreprocessor(
        size=size,
        fit=None if crops is None and size is None else "crop" if crops else "stretch",
        interpolation=choice(settings, "resample", {2: "bilinear", 3: "bicubic"}, file),
        **normalisation(settings, "image_mean", "image_std", file),
    )


def _size(
    settings: Mapping[str, Any], name: str, file: Path
) -> tuple[tuple[int, int] | None, bool]:
    """Height and width, and whether they are those of the shortest side only."""
    value = settings.get(name)
    if value is None:
        return None, False
    if not isinstance(value, dict):
        side = whole(value, file)
        return (side, side), False
    if "shortest_edge" in value:
        side = whole(value["shortest_edge"], file)
        return (side, side), True
    if not {"height", "width"} <= value.keys():
        raise WeightsError(
            f"expected {name} in {file} as height and width, or as shortest_edge, got {value!r:.60}"
        )
    return (whole(value["height"], file), whole(value["width"], file)), False


def _same(
    resized: tuple[int, int] | None, cropped: tuple[int, int] | None, file: Path
) -> tuple[int, int] | None:
    if resized and cropped and resized != cropped:
        raise WeightsError(
            f"{file} resizes pictures to {resized[0]}x{resized[1]} and crops them to "
            f"{cropped[0]}x{cropped[1]}; finegrain crops at the size to which it resizes"
        )
    return cropped or resized
