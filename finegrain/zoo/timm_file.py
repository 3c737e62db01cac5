"""Weights of timm's backbones, from a local file in timm's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finegrain.zoo.files import read_state_dict
from finegrain.zoo.renaming import check_fits

COUNTER = ".num_batches_tracked"


def load_backbone_weights(backbone: Any, path: Path) -> None:
    """Fill a timm backbone in place and completely, passing over the file's classifier.

    Args:
        backbone: As timm made it, without a classifier.
        path: A ``.safetensors``, ``.bin`` or ``.pth`` file.

    Raises:
        WeightsError: The file cannot be read, or is of another backbone.
    """
    named = backbone.default_cfg["classifier"]
    classifiers = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    state = {n: t for n, t in read_state_dict(path).items() if not n.startswith(classifiers)}
    own = backbone.state_dict()
    # Files older than these counters lack them, and with a momentum they decide nothing.
    counters = {name: tensor for name, tensor in own.items() if name.endswith(COUNTER)}
    state = counters | state
    check_fits(state, own, advice="Choose the backbone of the file by its name.")
    backbone.load_state_dict(state)
