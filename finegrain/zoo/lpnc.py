"""Checkpoints of LPNC (TIFS 2025): RDE's parts, prompt parts and other training heads.

Source: https://github.com/DrLazywh/LPNC, commit 0de5e5c. Its evaluation uses RDE's parts alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from finegrain.zoo import rde
from finegrain.zoo.renaming import rename

MARKS = (
    "bottleneck_proj.",
    "classifier_bge.",
    "classifier_id_bge.",
    "classifier_id_tse.",
    "classifier_proj.",
    "classifier_tse.",
    "img2text.",
    "mlp_bge.",
    "mlp_tse.",
    "prompt_learner.",
)
"""Name prefixes of parts that only training uses; no other method has them."""
TRAINING = (
    *(f"{name}{{}}" for name in MARKS),
    "W",
    # A second text tower, with the weights of the pretrained CLIP, encodes the prompts.
    "text_encoder.{}",
    "cross_attn.{}",
    "cross_modal_transformer.{}",
    "ln_pre_t.{}",
    "ln_pre_i.{}",
    "ln_post.{}",
)
"""Patterns of all tensors that only training uses."""
RATIO = 0.4
"""Share of the tokens that the released code selects."""
GLOBAL_SHARE = 0.32
"""Share of the global embedding in the score of the released code."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of LPNC to finegrain's names for RDE, without the parts of training.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, rde.THEIRS_TO_OURS, (*rde.IDLE, *TRAINING))
