"""Conversion of ``config.yaml``, the configuration of RaSa, to fields of a recipe."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from finegrain.bounded.plain_yaml import read_plain_yaml
from finegrain.errors import WeightsError
from finegrain.zoo.released_config import DATASETS, YAML_DEPTH, ReleasedConfig

THEIRS_TO_OURS = {
    "batch_size_train": "batch_size",
    "mlm_probability": "method.mask_rate",
    "mrtd_mask_probability": "method.replace_rate",
    "weak_pos_pair_probability": "weak_positives",
    "queue_size": "method.queue",
    "momentum": "method.momentum",
    "embed_dim": "method.embed_dim",
    "temp": "method.temperature",
    "alpha": "method.softness",
}
LOSSES = ("cl", "pitm", "mlm", "prd", "mrtd")
"""Losses in the order of ``weights`` in the file."""

AS_IN_RECIPES = {
    "warm_up": True,
    "optimizer.opt": "adamW",
    "optimizer.lr_custm": 1e-4,
    "schedular.sched": "cosine",
    "schedular.decay_rate": 1,
    "schedular.warmup_epochs": 1,
    "schedular.cooldown_epochs": 0,
}
"""Training options for which the recipes of RaSa support one value only."""


def read_rasa_config(path: Path) -> ReleasedConfig:
    """Read the configuration that RaSa's training writes next to its checkpoints.

    Raises:
        WeightsError: The file is missing or damaged, or a value is invalid.
    """
    left = _flat(read_plain_yaml(path, WeightsError, max_depth=YAML_DEPTH))
    fields = {ours: left.pop(theirs) for theirs, ours in THEIRS_TO_OURS.items() if theirs in left}
    fields |= _sizes(left) | _losses(left) | _dataset(left) | _rates(left)
    for name, value in AS_IN_RECIPES.items():
        if name in left and left[name] == value:
            del left[name]
    different = {name: left[name] for name in AS_IN_RECIPES if name in left}
    return ReleasedConfig(fields=fields, ignored=tuple(sorted(left)), different=different)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten inner tables to dotted names, and convert numbers that YAML 1.1 reads as text."""
    flat = {
        f"{name}.{inner}" if isinstance(value, dict) else name: inner_value
        for name, value in values.items()
        for inner, inner_value in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return {name: _number(value) for name, value in flat.items()}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _sizes(left: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "image_res" in left:
        side = left.pop("image_res")
        fields = {"method.image.height": side, "method.image.width": side}
    if "max_words" in left:
        # `max_words` does not count the start token.
        fields["method.text.context_length"] = 1 + _whole(left.pop("max_words"), "max_words")
    return fields


def _losses(left: dict[str, Any]) -> dict[str, Any]:
    if "weights" not in left:
        return {}
    weights = left.pop("weights")
    if not isinstance(weights, list) or len(weights) != len(LOSSES):
        raise WeightsError(
            f"expected weights of the losses {', '.join(LOSSES)}, got {reprlib.repr(weights)}"
        )
    return {"losses": dict(zip(LOSSES, weights, strict=True))}


def _dataset(left: dict[str, Any]) -> dict[str, Any]:
    """The dataset, whose name is part of the paths of its files."""
    paths = str(left.get("train_file"))
    kinds = [kind for name, (kind, _, _) in DATASETS.items() if name in paths]
    return {"data": {"type": kinds[0]}} if len(kinds) == 1 else {}


def _rates(left: dict[str, Any]) -> dict[str, Any]:
    """Learning rates; absolute in the file, relative to ``optimizer.lr`` in a recipe."""
    fields: dict[str, Any] = {}
    lr = left.pop("optimizer.lr", None)
    if isinstance(lr, float) and lr > 0:
        fields["optimizer.lr"] = lr
        for theirs, ours in (("min_lr", "final"), ("warmup_lr", "initial")):
            rate = left.pop(f"schedular.{theirs}", None)
            if isinstance(rate, float):
                fields[f"schedule.{ours}"] = round(rate / lr, 12)
    if "optimizer.weight_decay" in left:
        fields["optimizer.weight_decay"] = left.pop("optimizer.weight_decay")
    if "schedular.epochs" in left:
        fields["schedule.epochs"] = left.pop("schedular.epochs")
    return fields


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise WeightsError(f"expected {name} as a whole number, got {reprlib.repr(value)}")
    return value
