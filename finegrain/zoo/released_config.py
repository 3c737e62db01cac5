"""Conversion of ``configs.yaml``, the configuration of IRRA and its forks, to recipe fields."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finegrain.bounded.plain_yaml import read_plain_yaml
from finegrain.errors import WeightsError

YAML_DEPTH = 4
"""How deep the values of a released configuration may be nested."""

THEIRS_TO_OURS = {
    "text_length": "method.text.context_length",
    "vocab_size": "method.text.vocabulary",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "num_epoch": "schedule.epochs",
    "warmup_factor": "schedule.initial",
    "batch_size": "batch_size",
}
_OF_IRRA = {"temperature": "method.temperature", "cmt_depth": "method.fusion_depth"}
_OF_SELECTION = {
    "tau": "method.temperature",
    "margin": "method.margin",
    "select_ratio": "method.ratio",
}
_OF_RDE = _OF_SELECTION | {"noisy_rate": "caption_noise"}
_OF_ITSELF = _OF_SELECTION | {"num_instance": "items_per_identity"}

Fork = Literal["irra", "rde", "itself"]
"""A fork of IRRA with its own options."""
AS_IN_RECIPES: Mapping[str, Any] = {
    "bias_lr_factor": 2.0,
    "img_aug": True,
    "lr_factor": 5.0,
    "masked_token_rate": 0.8,
    "masked_token_unchanged_rate": 0.1,
    "sampler": "random",
    "target_lr": 0,
    "warmup_method": "linear",
    "weight_decay_bias": 0.0,
}
"""Training options for which the recipes support one value only. ITSELF may have a sampler of
identities instead."""

_DECIDE = (
    *AS_IN_RECIPES,
    "loss_names",
    "lrscheduler",
    "optimizer",
    "pretrain_choice",
    "topk_type",
)
"""Options that affect the training. If one of them is left over, no recipe can express it."""

DATASETS = {
    "CUHK-PEDES": ("CuhkPedes", 11003, 68126),
    "ICFG-PEDES": ("IcfgPedes", 3102, 34674),
    "RSTPReid": ("RstpReid", 3701, 37010),
}
"""Class of a dataset, and the number of identities and pairs of its training split."""
_EPS = {"Adam": 1e-3, "AdamW": 1e-8}
"""Epsilon of each optimiser, a constant in the released code."""
_PATCHES = {"ViT-B/16": 16, "ViT-B/32": 32}


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """A released configuration.

    Attributes:
        fields: Values by the dotted name of a recipe's field.
        ignored: Options of the file without a counterpart in a recipe.
        different: Those ignored options that affect the training, with their values.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    different: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str | None:
        """Class name of the dataset; None if finegrain does not know it."""
        kind: str | None = self.fields.get("data", {}).get("type")
        return kind


def read_released_config(path: Path, *, fork: Fork = "irra") -> ReleasedConfig:
    """Read a file that ``yaml.dump(vars(args))`` wrote, without running code from it.

    Args:
        path: The file.
        fork: Whose options the file has.

    Raises:
        WeightsError: The file is missing or damaged, has a tag of a Python object other than a
            tuple, or has an invalid value.
    """
    left = read_plain_yaml(path, WeightsError, max_depth=YAML_DEPTH)
    own = {"irra": _OF_IRRA, "rde": _OF_RDE, "itself": _OF_ITSELF}[fork]
    table = THEIRS_TO_OURS | own
    fields = {ours: left.pop(theirs) for theirs, ours in table.items() if theirs in left}
    options = {"irra": _losses, "rde": _rde, "itself": _itself}[fork]
    fields |= _picture(left) | options(left)
    fields |= _dataset(left, counts_pairs=fork == "rde") | _optimizer(left)
    fields |= _schedule(left, fields.get("schedule.epochs"))
    for name, value in AS_IN_RECIPES.items():
        if name in left and left[name] == value:
            del left[name]
    different = {name: left[name] for name in _DECIDE if name in left}
    return ReleasedConfig(fields=fields, ignored=tuple(sorted(left)), different=different)


def _picture(left: dict[str, Any]) -> dict[str, Any]:
    fields = {}
    if "img_size" in left:
        size = left.pop("img_size")
        if not isinstance(size, tuple | list) or [type(n) for n in size] != [int, int]:
            raise WeightsError(f"expected img_size as (height, width), got {reprlib.repr(size)}")
        fields = {"method.image.height": size[0], "method.image.width": size[1]}
    patch = _PATCHES.get(str(left.get("pretrain_choice")))
    if patch is not None:
        del left["pretrain_choice"]
        fields["method.image.patch"] = patch
        stride = left.pop("stride_size", patch)
        if stride != patch:
            raise WeightsError(
                f"expected patches side by side (stride_size {patch}), got stride_size "
                f"{reprlib.repr(stride)}; finegrain's image tower has no overlapping patches"
            )
    return fields


def _losses(left: dict[str, Any]) -> dict[str, Any]:
    if "loss_names" not in left:
        return {}
    names = [name.strip() for name in str(left.pop("loss_names")).split("+")]
    return {"losses": {name: left.pop(f"{name}_loss_weight", 1.0) for name in names}}


def _rde(left: dict[str, Any]) -> dict[str, Any]:
    """Options of RDE. It has a single loss; the rest of ``loss_names`` is a label of the run."""
    fields: dict[str, Any] = {}
    if "loss_names" in left and str(left["loss_names"]).split("+")[0].strip() == "TAL":
        del left["loss_names"]
    return fields | _disturbed(left)


def _disturbed(left: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(left.get("txt_aug"), bool):
        return {}
    return {"method.disturb": 0.2 if left.pop("txt_aug") else 0.0}


def _itself(left: dict[str, Any]) -> dict[str, Any]:
    """Options of ITSELF: the sampler, and how tokens are selected in training.

    Without ``return_all``, the attention of the last layer selects them. Without ``modify_k``,
    their share is constant.
    """
    fields: dict[str, Any] = {}
    if left.get("loss_names") == "tal+cid":
        del left["loss_names"]
    if left.get("sampler") == "identity":
        del left["sampler"]
    elif left.get("sampler") == "random":
        fields["items_per_identity"] = 1
    if left.get("return_all") is False:
        del left["return_all"]
        fields["method.rollout"] = None
        left.pop("topk_type", None)
    elif (left.get("return_all"), left.get("topk_type")) == (True, "custom"):
        del left["return_all"], left["topk_type"]
    if isinstance(left.get("modify_k"), bool) and not left.pop("modify_k"):
        fields["method.narrowing"] = None
    return fields | _disturbed(left)


def _dataset(left: dict[str, Any], *, counts_pairs: bool) -> dict[str, Any]:
    known = DATASETS.get(str(left.get("dataset_name")))
    if known is None:
        return {}
    del left["dataset_name"]
    kind, identities, pairs = known
    size = {"method.items": pairs} if counts_pairs else {"method.identities": identities}
    return {"data": {"type": kind}} | size


def _optimizer(left: dict[str, Any]) -> dict[str, Any]:
    kind = left.get("optimizer")
    if kind not in _EPS:
        return {}
    del left["optimizer"]
    fields: dict[str, Any] = {"optimizer.kind": kind.lower(), "optimizer.eps": _EPS[kind]}
    if "alpha" in left and "beta" in left:
        fields["optimizer.betas"] = [left.pop("alpha"), left.pop("beta")]
    return fields


def _schedule(left: dict[str, Any], epochs: Any) -> dict[str, Any]:
    """Schedule by epoch. The warm-up is a number of epochs in the file, a share in a recipe."""
    fields: dict[str, Any] = {}
    if left.get("lrscheduler") == "cosine":
        del left["lrscheduler"]
        fields["schedule.by_epoch"] = True
    warmup = left.get("warmup_epochs")
    if type(warmup) is int and type(epochs) is int and 0 <= warmup <= epochs and epochs:
        fields["schedule.warmup"] = left.pop("warmup_epochs") / epochs
    return fields
