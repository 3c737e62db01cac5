"""Recognition of the method of a checkpoint, by its tensor names and widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.zoo import chinese_clip, hf_siglip, itself, lpnc, open_clip_towers, rasa

Layout = Literal[
    "ours",
    "openai_clip",
    "open_clip_towers",
    "hf_clip",
    "hf_siglip",
    "chinese_clip",
    "irra",
    "itself_global",
    "rde",
    "itself",
    "lpnc",
    "albef",
]
"""``openai_clip`` includes plain CLIPs of open_clip, and ``open_clip_towers`` are its other models;
``albef`` includes RaSa; ``irra`` includes the forks that add no parts (NAM, HAM, GA-DMS);
``itself_global`` is an ITSELF that was trained with its global embedding alone."""

TITLES: Mapping[Layout, str] = {
    "ours": "finegrain",
    "openai_clip": "CLIP",
    "open_clip_towers": "a model of open_clip",
    "hf_clip": "CLIP",
    "hf_siglip": "SigLIP",
    "chinese_clip": "Chinese-CLIP",
    "irra": "IRRA, or of a fork with its names (NAM, HAM, GA-DMS)",
    "itself_global": "ITSELF, trained with its global embedding alone",
    "rde": "RDE",
    "itself": "ITSELF",
    "lpnc": "LPNC",
    "albef": "RaSa or ALBEF",
}
"""What a layout is a checkpoint of."""

SELECTING: frozenset[Layout] = frozenset({"rde", "itself", "lpnc"})
"""Layouts with RDE's token selections, which search uses."""
FINE_TUNED = SELECTING | {"irra", "itself_global"}
"""Layouts of IRRA and its forks, whose towers are fine-tuned on pictures of persons."""

TRUNK = "base_model."
"""Name prefix of the towers of IRRA and its forks."""

SELECTION, SELECTED = "visul_emb_layer.", "texual_emb_layer.linear.weight"
"""Name prefix of RDE's token selection, and the tensor that tells its width."""

WIDE = 4096
"""Width of the token selection in the released code of ITSELF and LPNC; RDE has 1024."""


def recognise(state: Mapping[str, Tensor]) -> Layout:
    """Recognise the layout of a state dict.

    Raises:
        WeightsError: It is a checkpoint of ITSELF or of LPNC, and nothing tells which.
    """
    if _has(state, TRUNK):
        return _fork(state)
    if _has(state, *rasa.PREFIXES):
        return "albef"
    if _has(state, "image_tower."):
        return "ours"
    if _has(state, "image_encoder.model."):
        raise WeightsError(
            "this is a MobileCLIP of 2024 with Apple's own names of tensors. Apple publishes the "
            "same models for open_clip as well, and finegrain reads those, such as: finegrain pull "
            "apple/MobileCLIP-S2-OpenCLIP"
        )
    if _has(state, *open_clip_towers.MARKS):
        return "open_clip_towers"
    if hf_siglip.MARK in state:
        return "hf_siglip"
    if _has(state, chinese_clip.RELEASED, chinese_clip.HF):
        return "chinese_clip"
    return "hf_clip" if _has(state, "text_model.") else "openai_clip"


def _has(state: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in state)


def _fork(state: Mapping[str, Tensor]) -> Layout:
    """Tell IRRA and its forks apart."""
    selects = _has(state, SELECTION)
    if _has(state, *itself.TRAINING):
        return "itself" if selects else "itself_global"
    if _has(state, *lpnc.MARKS):
        return "lpnc"
    if SELECTED in state and state[SELECTED].shape[0] == WIDE:
        raise WeightsError(
            f"this is a checkpoint of {TITLES['itself']} or of {TITLES['lpnc']}, and the heads of "
            "its training, which tell the two apart, were removed. They have the same embeddings "
            "and weigh them differently in a score. Expected the file as it was published, with "
            f"tensors such as {itself.TRAINING[0]}weight or {lpnc.MARKS[-1]}token_prefix"
        )
    return "rde" if selects else "irra"
