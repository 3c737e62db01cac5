"""What a weight file is: its layout, its sizes, and what is stated beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finegrain.zoo import hf_clip, openai_clip
from finegrain.zoo.clip_config import KnownClip, read_clip_config
from finegrain.zoo.clip_sizes import ClipSizes, read_clip_sizes
from finegrain.zoo.files import read_state_dict, weight_file
from finegrain.zoo.recognition import SELECTED, Layout, recognise


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What a weight file is.

    Attributes:
        file: The file itself, where a folder was given.
        layout: Whose names its tensors have.
        clip: Sizes of a CLIP's towers; None for other layouts.
        known: What is stated of a CLIP beside its tensors.
        selected_dim: Width of RDE's token selection, where the file has one.
    """

    file: Path
    layout: Layout
    clip: ClipSizes | None
    known: KnownClip
    selected_dim: int | None


def examine_weights(path: Path) -> Examined:
    """Examine a weight file, or the one in a folder.

    Raises:
        WeightsError: It cannot be read, or is of a method that finegrain cannot read.
    """
    file = weight_file(path)
    state = read_state_dict(file)
    layout = recognise(state)
    clip, known = None, KnownClip()
    if layout in ("openai_clip", "hf_clip"):
        known = read_clip_config(file, state, layout)
        convert = openai_clip.convert if layout == "openai_clip" else hf_clip.convert
        clip = read_clip_sizes(convert(state))
    selected = state.get(SELECTED)
    return Examined(
        file=file,
        layout=layout,
        clip=clip,
        known=known,
        selected_dim=None if selected is None else selected.shape[0],
    )
