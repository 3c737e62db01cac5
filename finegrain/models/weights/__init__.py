"""Pretrained weights: one file a layout, each a table of their names and ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.albef_image import AlbefImageTower
from finegrain.models.image_tower import VisionTransformer
from finegrain.models.weights import hf_clip, irra, openai_clip, rasa, rde
from finegrain.models.weights.files import read_state_dict
from finegrain.models.weights.irra import export_irra
from finegrain.models.weights.positions import resize_positions
from finegrain.models.weights.rasa import export_rasa
from finegrain.models.weights.rde import export_rde
from finegrain.models.weights.renaming import check_fits

__all__ = [
    "HEADS",
    "TRAINING_ONLY",
    "export_irra",
    "export_rasa",
    "export_rde",
    "is_of_rasa",
    "load_clip_weights",
]

Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

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

_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def load_clip_weights(model: nn.Module, path: Path, *, fresh: Collection[str] = ()) -> None:
    """Fill the towers, and heads where the file has them, in place and completely.

    Known are OpenAI's files, open_clip's, Hugging Face's folders, released checkpoints of
    RDE, of IRRA and its forks (``base_model.*``), of RaSa and of ALBEF, which it starts from,
    and our own; the layout is told by the names inside. Image positions are interpolated when
    the model's grid differs from the checkpoint's; everything else must fit exactly. Half
    precision is widened to the model's own.

    Args:
        model: A method; its image tower must be a CLIP transformer for all layouts but ours,
            and ALBEF's for RaSa and ALBEF.
        path: A ``.pt``, ``.pth``, ``.bin`` or ``.safetensors`` file, or a folder with one.
        fresh: Parts of the model that are not to be loaded and keep their initial values,
            such as :data:`HEADS`. What the file has for them is ignored, with two exceptions:
            what RDE selects tokens by, since search needs it, and the queues of ALBEF, which
            RaSa's training goes on with.

    Raises:
        WeightsError: The file cannot be read, a tensor in it is unknown, or one of the
            model's stays unfilled without being named as fresh.
    """
    state = read_state_dict(_weight_file(path))
    tower = model.get_submodule("image_tower")
    convert = _layout_of(state, tower)
    own = model.state_dict()
    if convert is rde.convert and hasattr(model, rde.SELECTIONS[0]):
        fresh = set(fresh).difference(rde.SELECTIONS)
    converted = convert(state)
    if convert is rasa.convert:
        queues = rasa.queues_to_go_on_with(state).intersection(fresh)
        fresh = set(fresh).difference(queues)
        for queue in queues:
            converted |= rasa.resize_queue(converted, own, queue)
    converted = _without(fresh, converted)
    if "logit_scale" not in own:  # IRRA's temperature is fixed, and CLIP's has no place in it
        converted.pop("logit_scale", None)
    positions = "image_tower.positional_embedding"
    if isinstance(tower, AlbefImageTower) and convert is rasa.convert:
        converted = _with_albef_positions(converted, tower)
    if positions in converted and isinstance(tower, VisionTransformer):
        converted[positions] = resize_positions(
            converted[positions], tower.grid, finetuned=convert in (irra.convert, rde.convert)
        )
    loaded = _without(fresh, own)
    check_fits(converted, loaded, advice=_advice(loaded))
    model.load_state_dict(own | {n: tensor.to(own[n].dtype) for n, tensor in converted.items()})


def _weight_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"the folder {path} has neither {' nor '.join(_FILES)}")


def is_of_rasa(path: Path) -> bool:
    """Whether a file is of RaSa or ALBEF.

    Raises:
        WeightsError: It cannot be read.
    """
    return any(name.startswith(rasa.PREFIXES) for name in read_state_dict(_weight_file(path)))


def _layout_of(names: Collection[str], tower: nn.Module) -> Convert:
    if any(name.startswith(rasa.PREFIXES) for name in names):
        if isinstance(tower, AlbefImageTower):
            return rasa.convert
        raise WeightsError(
            "this is a checkpoint of RaSa, or of another model on ALBEF or BLIP; expected one of "
            "CLIP, of open_clip, of RDE, or of IRRA and those of its forks that add no parts. "
            "Those of RaSa and ALBEF fill a RasaConfig"
        )
    if any(name.startswith("image_tower.") for name in names):
        return dict  # ours
    if any(name.startswith("text_model.") for name in names):
        return hf_clip.convert
    if any(name.startswith("visul_emb_layer.") for name in names):
        return rde.convert
    if any(name.startswith("base_model.") for name in names):
        return irra.convert
    return openai_clip.convert


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


def _advice(own: Collection[str]) -> str:
    heads = [head for head in HEADS if any(name.startswith(f"{head}.") for name in own)]
    sizes = "Choose the tower sizes of the checkpoint in the recipe"
    if not heads:
        return f"{sizes}, or leave out the heads that the model lacks: fresh=HEADS."
    return f"{sizes}, or keep heads at their initial values: fresh={heads}."
