"""Recognition of the method of a checkpoint, by its tensor names and widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.zoo import chinese_clip, hf_siglip, open_clip_towers, rasa

Layout = Literal[
    "ours",
    "openai_clip",
    "open_clip_towers",
    "hf_clip",
    "hf_siglip",
    "chinese_clip",
    "irra",
    "rde",
    "albef",
]
"""``openai_clip`` includes plain CLIPs of open_clip, and ``open_clip_towers`` are its other models;
``albef`` includes RaSa; ``irra`` includes the forks that add no parts for search (NAM, HAM,
GA-DMS)."""

TRUNK = "base_model."
"""Name prefix of the towers of IRRA and its forks."""

UNREADABLE = {
    "ITSELF (WACV 2026)": (
        "classifier_global.",
        "classifier_grab.",
        "classifier_id_global.",
        "classifier_id_grab.",
        "mlp_global.",
        "mlp_grab.",
    ),
    "LPNC (TIFS 2025)": (
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
    ),
}
"""Methods that are based on RDE but search differently, and the prefixes that identify them."""

SELECTION, SELECTED = "visul_emb_layer.", "texual_emb_layer.linear.weight"
"""Name prefix of RDE's token selection, and the tensor that tells its width."""

WIDE = 4096
"""Width of the token selection in the released code of ITSELF and LPNC; RDE has 1024."""


def recognise(state: Mapping[str, Tensor]) -> Layout:
    """Recognise the layout of a state dict.

    Raises:
        WeightsError: It is a checkpoint of a method that finegrain does not support.
    """
    if _has(state, TRUNK):
        for method, prefixes in UNREADABLE.items():
            if _has(state, *prefixes):
                raise _unreadable(method)
        if SELECTED in state and state[SELECTED].shape[0] == WIDE:
            raise _unreadable(" or ".join(UNREADABLE))
        return "rde" if _has(state, SELECTION) else "irra"
    if _has(state, *rasa.PREFIXES):
        return "albef"
    if _has(state, "image_tower."):
        return "ours"
    if _has(state, *open_clip_towers.MARKS):
        return "open_clip_towers"
    if hf_siglip.MARK in state:
        return "hf_siglip"
    if _has(state, chinese_clip.RELEASED, chinese_clip.HF):
        return "chinese_clip"
    return "hf_clip" if _has(state, "text_model.") else "openai_clip"


def _has(state: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in state)


def _unreadable(method: str) -> WeightsError:
    return WeightsError(
        f"this is a checkpoint of {method}, which finegrain cannot read yet. It has the tensor "
        "names of IRRA and RDE, but searches with another embedding, so loading it as one of them "
        "would give wrong results. Expected a checkpoint of CLIP, open_clip, IRRA (also NAM, HAM, "
        "GA-DMS), RDE, RaSa or ALBEF"
    )
