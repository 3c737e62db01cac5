"""Examination of a weight file: its layout, sizes and configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from finegrain.models import TextConfig
from finegrain.zoo import (
    chinese_clip,
    hf_clip,
    hf_siglip,
    irra,
    open_clip_towers,
    openai_clip,
)
from finegrain.zoo.clip_config import KnownClip, read_clip_config
from finegrain.zoo.clip_sizes import ClipSizes, read_clip_sizes
from finegrain.zoo.description import Description
from finegrain.zoo.files import read_state_dict, weight_file
from finegrain.zoo.recognition import FINE_TUNED, SELECTED, TRUNK, Layout, recognise
from finegrain.zoo.tokenizer_files import check_is_clips

DESCRIBERS: Mapping[Layout, Callable[[Path, Mapping[str, Tensor]], Description]] = {
    "open_clip_towers": open_clip_towers.describe,
    "hf_siglip": hf_siglip.describe,
    "chinese_clip": chinese_clip.describe,
}
"""For each layout whose configuration describes the towers: its reader."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Properties of a weight file.

    Attributes:
        file: The weight file, also if a folder was examined.
        layout: The layout of its tensor names.
        clip: Sizes of the towers of a CLIP, or of IRRA and its forks; None for other layouts.
        known: Configuration of a CLIP.
        described: Description of a model like CLIP that needs more files than its weights; None
            for other layouts.
        selected_dim: Width of RDE's token selection; None for other methods.
    """

    file: Path
    layout: Layout
    clip: ClipSizes | None
    known: KnownClip
    described: Description | None
    selected_dim: int | None


def examine_weights(path: Path) -> Examined:
    """Examine a weight file, or the one in a folder.

    Raises:
        WeightsError: It cannot be read, or is of a method that finegrain does not support.
    """
    file = weight_file(path)
    state = read_state_dict(file)
    layout = recognise(state)
    clip, known = None, KnownClip()
    if layout in ("openai_clip", "hf_clip"):
        known = read_clip_config(file, state, layout)
        convert = openai_clip.convert if layout == "openai_clip" else hf_clip.convert
        clip = read_clip_sizes(convert(state))
        if clip.vocabulary == TextConfig().vocabulary:
            check_is_clips(file.parent)
    if layout in FINE_TUNED:
        trunk = {name: tensor for name, tensor in state.items() if name.startswith(TRUNK)}
        clip = read_clip_sizes(irra.convert(trunk))
    describe = DESCRIBERS.get(layout)
    selected = state.get(SELECTED)
    return Examined(
        file=file,
        layout=layout,
        clip=clip,
        known=known,
        described=None if describe is None else describe(file, state),
        selected_dim=None if selected is None else selected.shape[0],
    )
