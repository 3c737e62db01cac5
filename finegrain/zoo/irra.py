"""Checkpoints of IRRA (Jiang and Ye, CVPR 2023), and of its forks with the same names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.zoo import openai_clip
from finegrain.zoo.renaming import rename, without_parts

THEIRS_TO_OURS = {
    **{f"base_model.{theirs}": ours for theirs, ours in openai_clip.THEIRS_TO_OURS.items()},
    "classifier.{}": "classifier.{}",
    "cross_attn.{}": "fusion.cross_attn.{}",
    "cross_modal_transformer.{}": "fusion.transformer.{}",
    "ln_pre_t.{}": "fusion.ln_text.{}",
    "ln_pre_i.{}": "fusion.ln_image.{}",
    "ln_post.{}": "fusion.ln_post.{}",
    "mlm_head.{}": "mlm_head.{}",
}
HEADS = ("classifier", "fusion", "mlm_head")
"""finegrain's parts besides the towers that IRRA has too."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of IRRA to finegrain's names.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, THEIRS_TO_OURS)


def export_irra(model: nn.Module, *, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Rename the tensors of a model to IRRA's names, which IRRA and its forks can load.

    Args:
        model: A method.
        without: Parts that are left out if IRRA does not have them.

    Raises:
        WeightsError: The image tower is not a CLIP transformer, or IRRA has no such part.
    """
    tower = model.get_submodule("image_tower")
    if not isinstance(tower, VisionTransformer):
        raise WeightsError(
            "IRRA's layout holds a CLIP vision transformer (VitConfig), and the image tower is a "
            f"{type(tower).__name__}"
        )
    ours_to_theirs = {ours: theirs for theirs, ours in THEIRS_TO_OURS.items()}
    left_out = set(without).difference(HEADS)
    return rename(without_parts(left_out, model.state_dict()), ours_to_theirs)
