"""Which method a checkpoint is of, told by the names and widths inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.zoo import rasa

Layout = Literal["ours", "openai_clip", "hf_clip", "irra", "rde", "albef"]
"""``openai_clip`` is also open_clip's; ``albef`` is also RaSa's; ``irra`` is shared by the forks
that add no parts for search (NAM, HAM, GA-DMS)."""

TRUNK = "base_model."
"""What the names of IRRA and of its forks begin with."""

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
"""Methods on RDE's trunk whose search differs from RDE's, and the prefixes that give them away."""

SELECTION, SELECTED = "visul_emb_layer.", "texual_emb_layer.linear.weight"
"""RDE's token selection, spelt as in the released files, and the layer that sets its width."""

WIDE = 4096
"""Width of the token selection of ITSELF and LPNC, which the released codes fix; RDE's is 1024."""


def recognise(state: Mapping[str, Tensor]) -> Layout:
    """The layout of a state dict.

    Raises:
        WeightsError: It is a checkpoint of a method that finegrain cannot read.
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
    return "hf_clip" if _has(state, "text_model.") else "openai_clip"


def _has(state: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in state)


def _unreadable(method: str) -> WeightsError:
    return WeightsError(
        f"this is a checkpoint of {method}, which finegrain cannot read yet. Its names begin as "
        "those of IRRA and RDE do, but it searches by another embedding, so reading it as one of "
        "them would give wrong results. Expected a checkpoint of CLIP, open_clip, IRRA (also NAM, "
        "HAM, GA-DMS), RDE, RaSa or ALBEF"
    )
