"""Weights of timm's backbones, from a local file in timm's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finegrain.models.weights.files import read_state_dict
from finegrain.models.weights.renaming import check_fits


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
    check_fits(state, backbone.state_dict(), advice="Choose the backbone of the file by its name.")
    backbone.load_state_dict(state)
