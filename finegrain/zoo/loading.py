"""Loading of pretrained weights. Each layout has a module that maps its names to finegrain's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.albef_image import AlbefImageTower
from finegrain.models.image_tower import VisionTransformer
from finegrain.models.low_rank import merged
from finegrain.zoo import (
    chinese_clip,
    hf_clip,
    hf_siglip,
    irra,
    itself,
    lpnc,
    open_clip_towers,
    openai_clip,
    rasa,
    rde,
)
from finegrain.zoo.clip_config import check_known, read_clip_config
from finegrain.zoo.files import read_state_dict, weight_file
from finegrain.zoo.irra import export_irra
from finegrain.zoo.positions import resize_positions, shorten_positions
from finegrain.zoo.rasa import export_rasa
from finegrain.zoo.rde import export_rde
from finegrain.zoo.recognition import FINE_TUNED, SELECTING, TITLES, Layout, recognise
from finegrain.zoo.renaming import check_fits, only_parts, parts_of

__all__ = [
    "export_irra",
    "export_rasa",
    "export_rde",
    "load_clip_weights",
]

CONVERTERS: Mapping[Layout, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "ours": merged,
    "openai_clip": openai_clip.convert,
    "open_clip_towers": open_clip_towers.convert,
    "hf_clip": hf_clip.convert,
    "hf_siglip": hf_siglip.convert,
    "chinese_clip": chinese_clip.convert,
    "irra": irra.convert,
    "itself_global": itself.convert,
    "rde": rde.convert,
    "itself": itself.convert,
    "lpnc": lpnc.convert,
    "albef": rasa.convert,
}
"""Converter of each layout to finegrain's tensor names."""

IMAGE_POSITIONS = "image_tower.positional_embedding"
TEXT_POSITIONS = "text_tower.positional_embedding"

NEEDS_SELECTIONS = (
    "This is a checkpoint of {}, which needs a method of type RdeConfig or ItselfConfig: use a "
    "recipe such as recipes/rde_cuhk_pedes.py or recipes/itself_cuhk_pedes.py."
)


def load_clip_weights(
    model: nn.Module, path: Path, *, parts: Collection[str] | None = None
) -> None:
    """Load a weight file into a model, or into some parts of it, such as its towers.

    The model is changed in place. Supported are files of OpenAI and of open_clip, folders of
    Hugging Face, released checkpoints of IRRA and its forks (``base_model.*``), of RaSa and of
    ALBEF, and finegrain's own files. The layout is recognised by the tensor names.

    Image positions are interpolated if the grid of the model differs from that of the
    checkpoint. A text tower with a shorter context takes the first positions. All other tensors
    must fit exactly. Half precision is converted to the precision of the model.

    Args:
        model: A method. Its image tower must be ALBEF's for files of RaSa and ALBEF, any tower
            for finegrain's own files, and a CLIP transformer for all other layouts.
        path: A ``.pt``, ``.pth``, ``.bin`` or ``.safetensors`` file, or a folder with one.
        parts: Parts of the model to load, such as ``image_tower``; a part is a submodule,
            parameter or buffer. Other parts keep their values, and their tensors in the file are
            ignored. Two layouts bring more parts, which are loaded if the model has them: RDE its
            token selections, and ALBEF its queues, with which the training of RaSa continues.
            Files of IRRA and its forks have no ``logit_scale``, so the model keeps its own.
            None loads all parts, and the file must have exactly these.

    Warns:
        UserWarning: The activation that a CLIP was trained with is unknown.

    Raises:
        WeightsError: The file cannot be read, or is of a method that finegrain does not support.
            Or a tensor of the file is unknown, or a tensor of these parts is missing in the file.
            Or the configuration next to a CLIP contradicts the model.
    """
    file = weight_file(path)
    state = read_state_dict(file)
    tower = model.get_submodule("image_tower")
    layout = recognise(state)
    _check_kind(layout, tower)
    if layout in ("openai_clip", "hf_clip"):
        check_known(model, read_clip_config(file, state, layout), file)
    own = model.state_dict()
    converted = CONVERTERS[layout](state)
    if parts is None:
        parts = parts_of({**own, **converted})
    else:
        brought = _brought(layout, state).intersection(parts_of(own))
        parts = brought.union(parts)
        if layout == "albef":
            for queue in brought:
                converted |= rasa.resize_queue(converted, own, queue)
    converted = only_parts(parts, converted)
    if layout in FINE_TUNED:  # a constant temperature, which is not in the file: keep the model's
        parts = set(parts).difference(["logit_scale"])
    if "logit_scale" not in own:  # the temperature of IRRA is constant; CLIP's is not used
        converted.pop("logit_scale", None)
    if "logit_bias" not in own:
        converted.pop("logit_bias", None)
    if isinstance(tower, AlbefImageTower) and layout == "albef":
        converted = _with_albef_positions(converted, tower)
    if IMAGE_POSITIONS in converted and isinstance(tower, VisionTransformer):
        converted[IMAGE_POSITIONS] = resize_positions(
            converted[IMAGE_POSITIONS], tower.grid, finetuned=layout in FINE_TUNED
        )
    if TEXT_POSITIONS in converted and TEXT_POSITIONS in own:
        converted[TEXT_POSITIONS] = shorten_positions(
            converted[TEXT_POSITIONS], len(own[TEXT_POSITIONS])
        )
    loaded = only_parts(parts, own)
    check_fits(converted, loaded, advice=_advice(parts_of(loaded), layout))
    model.load_state_dict(own | {n: tensor.to(own[n].dtype) for n, tensor in converted.items()})


def check_method(layout: Layout, parts: Collection[str]) -> None:
    """Check that a model has the parts by which the method of a checkpoint searches.

    Args:
        layout: Layout of the checkpoint.
        parts: Parts of the model.

    Raises:
        WeightsError: The model would search by the towers alone, with worse results.
    """
    if layout in SELECTING and not set(rde.SELECTIONS).issubset(parts):
        raise WeightsError(NEEDS_SELECTIONS.format(TITLES[layout]))


def _check_kind(layout: Layout, tower: nn.Module) -> None:
    if layout == "albef" and not isinstance(tower, AlbefImageTower):
        raise WeightsError(
            "this is a checkpoint of RaSa, or of another model based on ALBEF or BLIP; expected "
            "one of CLIP, open_clip, RDE, IRRA or a fork of IRRA without additional parts. To "
            "load RaSa or ALBEF, use a recipe with a RasaConfig"
        )


def _with_albef_positions(state: Mapping[str, Tensor], tower: AlbefImageTower) -> dict[str, Tensor]:
    """Resize the positions to the grid of the model, as ALBEF does."""
    resized = {
        name: resize_positions(state[name][0], tower.grid, finetuned=True, mode="bicubic")[None]
        for name in rasa.POSITIONS
        if name in state
    }
    return {**state, **resized}


def _brought(layout: Layout, state: Mapping[str, Tensor]) -> frozenset[str]:
    """Parts of a file that are loaded even if only the towers are wanted."""
    if layout in SELECTING:
        return frozenset(rde.SELECTIONS)
    return rasa.queues_to_go_on_with(state) if layout == "albef" else frozenset()


def _advice(parts: Collection[str], layout: Layout) -> str:
    if layout in SELECTING and not set(rde.SELECTIONS).intersection(parts):
        return NEEDS_SELECTIONS.format(TITLES[layout])
    return (
        "Choose the tower sizes of the checkpoint in the recipe, or load fewer parts, such as "
        'parts=("image_tower", "text_tower").'
    )
