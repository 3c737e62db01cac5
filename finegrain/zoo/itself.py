"""Checkpoints of ITSELF (Nguyen et al., WACV 2026): RDE's parts and other training heads.

Source: https://github.com/GenAI4E/ITSELF, commit 2f20d64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from finegrain.zoo import rde
from finegrain.zoo.clip_fork import to_fork
from finegrain.zoo.renaming import rename

_OF_HEADS = {"classifier": "pairs", "classifier_id": "people", "mlp": "mix"}
_KINDS = {"global": "global_heads", "grab": "selected_heads"}
_HEADS = {
    f"{theirs}_{kind}.{{}}": f"{part}.{ours}.{{}}"
    for kind, part in _KINDS.items()
    for theirs, ours in _OF_HEADS.items()
}
THEIRS_TO_OURS = rde.THEIRS_TO_OURS | _HEADS
TRAINING = tuple(name.removesuffix("{}") for name in _HEADS)
"""Name prefixes of the heads that only training uses; no other method has them."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of ITSELF to finegrain's names.

    The number of steps done is 0, as in the released code, which does not store it.

    Raises:
        WeightsError: A name is unknown.
    """
    steps_done = torch.zeros((), dtype=torch.long)
    return rename(state, THEIRS_TO_OURS, rde.IDLE) | {"steps_done": steps_done}


def export_itself(model: nn.Module, *, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Rename the tensors of a model to ITSELF's names, without the layers that it never uses.

    Args:
        model: A method.
        without: Parts to leave out, which ITSELF does not have.

    Raises:
        WeightsError: The image tower is not a CLIP transformer, or ITSELF has no such part.
    """
    return to_fork("ITSELF", model, THEIRS_TO_OURS, without)
