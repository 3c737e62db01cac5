"""Checkpoints of ITSELF (Nguyen et al., WACV 2026): RDE's parts and other training heads.

Source: https://github.com/GenAI4E/ITSELF, commit 2f20d64. Its evaluation selects tokens by the
attention of the last block, as RDE does, and 40 % of them. The attention rollout is for training.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from finegrain.zoo import rde
from finegrain.zoo.renaming import rename

TRAINING = (
    "classifier_global.",
    "classifier_grab.",
    "classifier_id_global.",
    "classifier_id_grab.",
    "mlp_global.",
    "mlp_grab.",
)
"""Name prefixes of the heads that only training uses; no other method has them."""
RATIO = 0.4
"""Share of the tokens that the released code selects."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of ITSELF to finegrain's names for RDE, without the training heads.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename(state, rde.THEIRS_TO_OURS, (*rde.IDLE, *(f"{name}{{}}" for name in TRAINING)))
