"""Checkpoints of IRRA (Jiang and Ye, CVPR 2023), and of its forks with the same names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from finegrain.zoo import openai_clip
from finegrain.zoo.clip_fork import to_fork
from finegrain.zoo.renaming import rename

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
    return to_fork("IRRA", model, THEIRS_TO_OURS, set(without).difference(HEADS))
