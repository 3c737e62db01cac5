"""Loading of a timm backbone from a local file in timm's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finegrain.zoo.files import read_state_dict
from finegrain.zoo.renaming import check_fits

COUNTER = ".num_batches_tracked"


def load_backbone_weights(backbone: Any, path: Path) -> None:
    """Load a weight file into a timm backbone, in place. The classifier of the file is ignored.

    Args:
        backbone: A backbone made by timm without a classifier.
        path: A ``.safetensors``, ``.bin`` or ``.pth`` file.

    Raises:
        WeightsError: The file cannot be read, or is of another backbone.
    """
    names = backbone.default_cfg["classifier"]
    classifiers = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    state = {n: t for n, t in read_state_dict(path).items() if not n.startswith(classifiers)}
    own = backbone.state_dict()
    # Old files do not have these counters, and batch normalisation with a momentum ignores them.
    counters = {name: tensor for name, tensor in own.items() if name.endswith(COUNTER)}
    state = counters | state
    check_fits(state, own, advice="Choose the backbone of the file by its name.")
    backbone.load_state_dict(state)
