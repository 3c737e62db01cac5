"""The ranges of the numbers in a recipe.

A number outside its range ends in an error deep inside a library, in a training that never ends,
or in one that learns nothing. The upper bounds are far above what anybody trains with.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from finegrain.errors import RecipeError

_ANY = (-math.inf, math.inf)
_SHARE = (0, 1)
_COUNT = (0, 10**9)
_ONE_OR_MORE = (1, 10**9)
_WIDTH = (1, 1 << 24)
_SIDE = (1, 1 << 14)
_DEPTH = (1, 1 << 10)
_SMALL = (0, 1000)

RANGES: Mapping[str, tuple[float, float]] = {
    # pictures
    "height": _SIDE,
    "width": _SIDE,
    "pixels": _SIDE,
    "patch": _SIDE,
    "ConvConfig.patch": (0, 1 << 14),  # 0: the tower gives no tokens
    "grids": (1, 1 << 10),
    "mean": (-10, 10),
    "std": (1e-6, 10),
    # towers
    "channels": _WIDTH,
    "depth": _DEPTH,
    "fusion_depth": _DEPTH,
    "heads": _DEPTH,
    "mlp_width": _WIDTH,
    "embed_dim": _WIDTH,
    "global_dim": _WIDTH,
    "selected_dim": _WIDTH,
    "norm_eps": _SHARE,
    "dropout": _SHARE,
    # texts
    "vocabulary": _WIDTH,
    "context_length": (2, 1 << 16),
    "training_length": (2, 1 << 16),
    "positions": (2, 1 << 16),
    "pad_id": _COUNT,
    "max_words": _ONE_OR_MORE,
    # losses of the methods
    "losses": (0, 1e6),
    "temperature": (1e-6, 1000),
    "identities": _ONE_OR_MORE,
    "items": _ONE_OR_MORE,
    "mask_rate": _SHARE,
    "replace_rate": _SHARE,
    "masked_patches": _ONE_OR_MORE,
    "margin": _SMALL,
    "decay": _SHARE,
    "momentum": _SHARE,
    "queue": _ONE_OR_MORE,
    "hardest": _ONE_OR_MORE,
    "softness": _SHARE,
    "ramp": _ONE_OR_MORE,
    "ratio": _SHARE,
    "global_share": _SHARE,
    "layers": (0, 1 << 10),
    "discard": _SHARE,
    "Narrowing.start": (1e-6, 1),
    "end": (1e-6, 1),
    "disturb": _SHARE,
    "iterations": _ONE_OR_MORE,
    "tolerance": _SMALL,
    "spread": _SMALL,
    "start": _COUNT,
    "noisy_above": _SHARE,
    # data
    "train": _ONE_OR_MORE,
    "val": _COUNT,
    "test": _COUNT,
    "Shares.train": _SHARE,
    "Shares.val": _SHARE,
    "Shares.test": _SHARE,
    "pictures_per_identity": _SMALL,
    "typos": _SHARE,
    "products": _ONE_OR_MORE,
    "views": (1, 1000),
    "max_bad_share": _SHARE,
    # augmentation
    "flip": _SHARE,
    "pad": _SHARE,
    "erase": _SHARE,
    "fill": (0, 255),
    "jitter": _SMALL,
    "picks": _SMALL,
    "drop_words": _SHARE,
    # the optimiser and its schedule
    "lr": _SMALL,
    "betas": (0, 1 - 1e-9),
    "eps": _SMALL,
    "weight_decay": _SMALL,
    "clip_norm": (0, 1e9),
    "rank": _WIDTH,
    "alpha": (0, 1e6),
    "epochs": _COUNT,
    "steps": _ONE_OR_MORE,
    "warmup": _SHARE,
    "initial": _SMALL,
    "final": _SMALL,
    "hold": _COUNT,
    "evaluate_every": _ONE_OR_MORE,
    "patience": _ONE_OR_MORE,
    # the recipe
    "captions": (1, 1000),
    "weak_positives": _SHARE,
    "caption_noise": _SHARE,
    "batch_size": (1, 1 << 24),
    "items_per_identity": (1, 1 << 24),
    "accumulate": (1, 1 << 24),
    "workers": (0, 1024),
    "seed": (0, 2**63 - 1),
    # metrics of a paper
    "rank1": _ANY,
    "mAP": _ANY,
    "rank1_band": _ANY,
    "rerank_k": _ONE_OR_MORE,
}
"""The smallest and the largest value of each number, by the name of its field. A field whose
range differs in one class also stands here with the name of the class."""


def check_ranges(recipe: object) -> None:
    """Check all numbers of a recipe, also those of its dataset and its method.

    Raises:
        RecipeError: A number is outside its range.
    """
    for name, value, (least, most) in _numbers(recipe, ""):
        if not least <= value <= most:
            if most < 1e6:
                limits = f"from {least:g} to {most:g}"
            else:
                limits = f"of at least {least:g}" if value < least else f"of at most {most:,.0f}"
            raise RecipeError(f"expected {name} {limits}, got {reprlib.repr(value)}")


def _numbers(part: Any, prefix: str) -> Iterator[tuple[str, float, tuple[float, float]]]:
    """Dotted name, value and range of each number."""
    for field in fields(part):
        name, value = f"{prefix}{field.name}", getattr(part, field.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{name}.")
            continue
        own = f"{type(part).__name__}.{field.name}"
        limits = RANGES.get(own) or RANGES.get(field.name, _ANY)
        for inner, element in _elements(name, value):
            if is_dataclass(element):
                yield from _numbers(element, f"{inner}.")
            elif isinstance(element, int | float) and not isinstance(element, bool):
                yield inner, element, limits


def _elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, element in value.items():
            yield f"{name}.{key}", element
    elif isinstance(value, tuple):
        for place, element in enumerate(value):
            yield f"{name}[{place}]", element
    else:
        yield name, value
