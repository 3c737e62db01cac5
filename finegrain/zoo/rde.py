"""Checkpoints of RDE (Qin et al., CVPR 2024): IRRA's names and two token selections."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from finegrain.zoo import openai_clip
from finegrain.zoo.clip_fork import to_fork
from finegrain.zoo.renaming import rename

_SELECTION = {
    "mlp.layers.0.{}": "hidden.{}",
    "mlp.bns.0.{}": "norm.{}",
    "mlp.layers.1.{}": "out.{}",
}
THEIRS_TO_OURS = {
    **{f"base_model.{theirs}": ours for theirs, ours in openai_clip.THEIRS_TO_OURS.items()},
    **{f"visul_emb_layer.{t}": f"image_selection.{o}" for t, o in _SELECTION.items()},
    **{f"texual_emb_layer.{t}": f"text_selection.{o}" for t, o in _SELECTION.items()},
    # The same layer has two names. The image selection also has a `linear`, which is not used.
    "visul_emb_layer.fc.{}": "image_selection.fc.{}",
    "texual_emb_layer.linear.{}": "text_selection.fc.{}",
}
"""The spellings "visul" and "texual" are those of the released files."""
IDLE = (
    "visul_emb_layer.linear.{}",
    "visul_emb_layer.mlp.bns.1.{}",
    "texual_emb_layer.mlp.bns.1.{}",
)
"""Layers that the released code creates but never uses."""
SELECTIONS = ("image_selection", "text_selection")
"""finegrain's names of the token selections."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of RDE to finegrain's names.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, THEIRS_TO_OURS, IDLE)


def export_rde(model: nn.Module, *, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Rename the tensors of a model to RDE's names, without the layers that RDE never uses.

    RDE's loader leaves these layers at their initial values.

    Args:
        model: A method.
        without: Parts to leave out, which RDE does not have.

    Raises:
        WeightsError: The image tower is not a CLIP transformer, or RDE has no such part.
    """
    return to_fork("RDE", model, THEIRS_TO_OURS, without)
