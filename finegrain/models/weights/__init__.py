"""Pretrained weights: one file a source, each a table of their names and ours."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from finegrain.errors import WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.models.weights import hf_clip, openai_clip
from finegrain.models.weights.files import read_state_dict
from finegrain.models.weights.positions import resize_positions
from finegrain.models.weights.renaming import check_fits

__all__ = ["load_clip_weights"]


def load_clip_weights(model: nn.Module, path: Path) -> None:
    """Fill a CLIP from OpenAI's file or a Hugging Face folder, in place and completely.

    The layout is told by the names inside. Image positions are interpolated when the
    model's grid differs from the checkpoint's; everything else must fit exactly. Half
    precision is widened to the model's own.

    Args:
        model: A :class:`~finegrain.methods.Clip` whose image tower is a CLIP transformer.
        path: A ``.pt`` or ``.safetensors`` file, or a folder with ``model.safetensors``.

    Raises:
        WeightsError: The file cannot be read, a tensor in it is unknown, or one of the
            model's stays unfilled.
    """
    state = read_state_dict(_weight_file(path))
    source = hf_clip if any(name.startswith("text_model.") for name in state) else openai_clip
    converted = source.convert(state)
    positions = "image_tower.positional_embedding"
    tower = model.get_submodule("image_tower")
    if positions in converted and isinstance(tower, VisionTransformer):
        converted[positions] = resize_positions(converted[positions], tower.grid)
    own = model.state_dict()
    check_fits(converted, own)
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in converted.items()})


def _weight_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"the folder {path} has neither model.safetensors nor pytorch_model.bin")
