"""Checkpoints of RDE (Qin et al., CVPR 2024): IRRA's names, and two token selections."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.zoo import openai_clip
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
    # Two names for the same path: the layer of images has a `linear` too, which enters nothing.
    "visul_emb_layer.fc.{}": "image_selection.fc.{}",
    "texual_emb_layer.linear.{}": "text_selection.fc.{}",
}
"""The first two prefixes are spelt as in the released files."""
IDLE = (
    "visul_emb_layer.linear.{}",
    "visul_emb_layer.mlp.bns.1.{}",
    "texual_emb_layer.mlp.bns.1.{}",
)
"""Layers that the released code makes and never calls."""
SELECTIONS = ("image_selection", "text_selection")
"""Our parts beside the towers that search needs."""
TRAINED_WITH = "trusted"
"""Our account of the pairs that the division trusts, which no released file has."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RDE's names to ours.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, THEIRS_TO_OURS, IDLE)


def export_rde(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model under RDE's names, without the layers that RDE never calls.

    Its loader leaves those at their initial values.

    Raises:
        WeightsError: The image tower is not a CLIP transformer, or a part has no name there.
    """
    tower = model.get_submodule("image_tower")
    if not isinstance(tower, VisionTransformer):
        raise WeightsError(
            "RDE's layout holds a CLIP vision transformer (VitConfig), and the image tower is a "
            f"{type(tower).__name__}"
        )
    ours_to_theirs = {ours: theirs for theirs, ours in THEIRS_TO_OURS.items()}
    return rename(model.state_dict(), ours_to_theirs, [TRAINED_WITH])
