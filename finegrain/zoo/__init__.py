"""Pretrained weights: one file a layout, each a table of their names and ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.albef_image import AlbefImageTower
from finegrain.models.image_tower import VisionTransformer
from finegrain.zoo import hf_clip, irra, openai_clip, rasa, rde
from finegrain.zoo.clip_config import check_known, read_clip_config
from finegrain.zoo.files import read_state_dict, weight_file
from finegrain.zoo.irra import export_irra
from finegrain.zoo.positions import resize_positions, shorten_positions
from finegrain.zoo.rasa import export_rasa
from finegrain.zoo.rde import export_rde
from finegrain.zoo.recognition import Layout, recognise
from finegrain.zoo.renaming import check_fits

__all__ = [
    "HEADS",
    "TRAINING_ONLY",
    "export_irra",
    "export_rasa",
    "export_rde",
    "load_clip_weights",
]

CONVERTERS: Mapping[Layout, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "ours": dict,
    "openai_clip": openai_clip.convert,
    "hf_clip": hf_clip.convert,
    "irra": irra.convert,
    "rde": rde.convert,
    "albef": rasa.convert,
}
"""Names of each layout to ours."""

IMAGE_POSITIONS = "image_tower.positional_embedding"
TEXT_POSITIONS = "text_tower.positional_embedding"

MATCHING = ("patches", "joint", "match_head", "word_head", "patch_head")
"""FashionBERT's parts beside its towers."""

MEMORY = ("momentum", "image_queue", "text_queue")
"""What a method remembers from step to step."""

COLORS = "colors"
"""The colour tasks that any method may learn beside its own."""

TRAINING_ONLY = (
    COLORS,
    *irra.HEADS,
    *MATCHING,
    *MEMORY,
    *rasa.HEADS,
    rde.TRAINED_WITH,
    "steps_done",
)
"""Parts of ours that serve training: search by one inner product needs none of them."""

HEADS = (*TRAINING_ONLY, *rde.SELECTIONS)
"""Parts of ours beside the towers, which CLIP's own files lack."""


def load_clip_weights(model: nn.Module, path: Path, *, fresh: Collection[str] = ()) -> None:
    """Fill the towers, and heads where the file has them, in place and completely.

    Known are OpenAI's files, open_clip's, Hugging Face's folders, released checkpoints of
    RDE, of IRRA and its forks (``base_model.*``), of RaSa and of ALBEF, which it starts from,
    and our own; the layout is told by the names inside. Image positions are interpolated when
    the model's grid differs from the checkpoint's, and a text tower of a shorter context takes
    the first positions; everything else must fit exactly. Half precision is widened to the
    model's own.

    Args:
        model: A method; its image tower must be a CLIP transformer for all layouts but ours,
            and ALBEF's for RaSa and ALBEF.
        path: A ``.pt``, ``.pth``, ``.bin`` or ``.safetensors`` file, or a folder with one.
        fresh: Parts of the model that are not to be loaded and keep their initial values,
            such as :data:`HEADS`. What the file has for them is ignored, with two exceptions:
            what RDE selects tokens by, since search needs it, and the queues of ALBEF, which
            RaSa's training goes on with.

    Warns:
        UserWarning: Nothing says which activation a CLIP was trained with.

    Raises:
        WeightsError: The file cannot be read or is of a method that finegrain cannot read, a
            tensor in it is unknown, one of the model's stays unfilled without being named as
            fresh, or what is stated beside a CLIP contradicts the model.
    """
    file = weight_file(path)
    state = read_state_dict(file)
    tower = model.get_submodule("image_tower")
    layout = recognise(state)
    _check_kind(layout, tower)
    if layout in ("openai_clip", "hf_clip"):
        check_known(model, read_clip_config(file, state, layout), file)
    own = model.state_dict()
    if layout == "rde" and hasattr(model, rde.SELECTIONS[0]):
        fresh = set(fresh).difference(rde.SELECTIONS)
    converted = CONVERTERS[layout](state)
    if layout == "albef":
        queues = rasa.queues_to_go_on_with(state).intersection(fresh)
        fresh = set(fresh).difference(queues)
        for queue in queues:
            converted |= rasa.resize_queue(converted, own, queue)
    converted = _without(fresh, converted)
    if "logit_scale" not in own:  # IRRA's temperature is fixed, and CLIP's has no place in it
        converted.pop("logit_scale", None)
    if isinstance(tower, AlbefImageTower) and layout == "albef":
        converted = _with_albef_positions(converted, tower)
    if IMAGE_POSITIONS in converted and isinstance(tower, VisionTransformer):
        converted[IMAGE_POSITIONS] = resize_positions(
            converted[IMAGE_POSITIONS], tower.grid, finetuned=layout in ("irra", "rde")
        )
    if TEXT_POSITIONS in converted and TEXT_POSITIONS in own:
        converted[TEXT_POSITIONS] = shorten_positions(
            converted[TEXT_POSITIONS], len(own[TEXT_POSITIONS])
        )
    loaded = _without(fresh, own)
    check_fits(converted, loaded, advice=_advice(loaded, layout))
    model.load_state_dict(own | {n: tensor.to(own[n].dtype) for n, tensor in converted.items()})


def _check_kind(layout: Layout, tower: nn.Module) -> None:
    if layout == "albef" and not isinstance(tower, AlbefImageTower):
        raise WeightsError(
            "this is a checkpoint of RaSa, or of another model on ALBEF or BLIP; expected one of "
            "CLIP, of open_clip, of RDE, or of IRRA and those of its forks that add no parts. "
            "Those of RaSa and ALBEF fill a RasaConfig"
        )


def _with_albef_positions(state: Mapping[str, Tensor], tower: AlbefImageTower) -> dict[str, Tensor]:
    """As ALBEF brings its 16x16 grid to that of larger pictures."""
    resized = {
        name: resize_positions(state[name][0], tower.grid, finetuned=True, mode="bicubic")[None]
        for name in rasa.POSITIONS
        if name in state
    }
    return {**state, **resized}


def _without(parts: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.split(".")[0] not in parts}


def _advice(own: Collection[str], layout: Layout) -> str:
    if layout == "rde" and not any(name.startswith(rde.SELECTIONS) for name in own):
        return (
            "This is a checkpoint of RDE, which needs a method of type RdeConfig: give a recipe "
            "such as recipes/rde_cuhk_pedes.py."
        )
    heads = [head for head in HEADS if any(name.startswith(f"{head}.") for name in own)]
    sizes = "Choose the tower sizes of the checkpoint in the recipe"
    if not heads:
        return f"{sizes}, or leave out the heads that the model lacks: fresh=HEADS."
    return f"{sizes}, or keep heads at their initial values: fresh={heads}."
