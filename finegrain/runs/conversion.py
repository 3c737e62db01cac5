"""Conversion of released checkpoints to run folders and back."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finegrain.errors import CheckpointError
from finegrain.methods import BertClipConfig, ClipConfig
from finegrain.recipe import Recipe, override
from finegrain.runs.checkpoint import State, last_checkpoint, save_checkpoint
from finegrain.runs.released_recipe import recipe_of
from finegrain.runs.run import assemble, load_run
from finegrain.zoo.clip_config import ACTIVATION_UNKNOWN
from finegrain.zoo.examination import Examined, examine_weights
from finegrain.zoo.loading import check_method, load_clip_weights
from finegrain.zoo.rasa_config import read_rasa_config
from finegrain.zoo.recognition import FINE_TUNED, SELECTING, TITLES, Layout
from finegrain.zoo.released_config import Fork, ReleasedConfig, read_released_config

CONFIG, RASA_CONFIG = "configs.yaml", "config.yaml"
"""Configuration files next to released checkpoints: of IRRA and its forks, and of RaSa."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Result of converting a released checkpoint.

    Attributes:
        folder: The run folder.
        layout: The recognised layout of the file.
        recipe: The recipe of the run.
        config: The released configuration that was read; None if there was none.
        ignored: Fields of this configuration that a recipe does not have.
        heads: Whether the training heads were loaded.
    """

    folder: Path
    layout: Layout
    recipe: Recipe
    config: Path | None
    ignored: tuple[str, ...]
    heads: bool

    def __str__(self) -> str:
        if isinstance(self.recipe.method, ClipConfig | BertClipConfig):
            parts = "towers"
        elif self.layout in SELECTING:
            parts = "towers and token selections"
        else:
            parts = "towers and training heads" if self.heads else "towers, and no training heads"
        lines = [
            f"{self.recipe.weights} is a checkpoint of {TITLES[self.layout]}",
            f"{self.folder}: {parts}",
        ]
        if self.config is not None:
            lines.append(f"read {self.config}, and ignored: {', '.join(self.ignored) or 'nothing'}")
        if self.recipe.evaluation_only is not None:
            lines.append(f"for evaluation and export only: {self.recipe.evaluation_only}")
        return "\n".join(lines)


def released_to_run(
    released: Path,
    out: Path,
    *,
    config: Path | None = None,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    heads: bool = False,
) -> Converted:
    """Convert a released checkpoint to a run folder, at step 0 of its recipe.

    The method is recognised by the tensor names. The recipe is built from these sources; later
    ones take precedence:

    1. ``recipe``, or else the method's own recipe for the dataset that ``config`` names;
    2. the values of ``config``;
    3. ``overrides``.

    A recipe is for evaluation and export only if it is not the method's own, or if a loss was
    removed together with its head. It then states the reason, and :func:`~finegrain.train`
    rejects it.

    Args:
        released: A weight file; see :func:`~finegrain.zoo.loading.load_clip_weights`.
        out: The run folder.
        config: The released ``configs.yaml``, or ``config.yaml`` of RaSa. If both this and
            ``recipe`` are None, the file next to the weights is read, if there is one.
        recipe: The recipe to start from; needed to continue training from the weights.
        overrides: Fields to set, such as ``"data.root=/data/CUHK-PEDES"``.
        heads: Also load the training heads, which must then fit exactly. Otherwise the losses
            that need them are removed from the recipe. Search needs no heads.

    Returns:
        A summary of the conversion.

    Raises:
        WeightsError: The weights do not fit, or a file is damaged or unsafe.
        RecipeError: A recipe has no such field, or a value is invalid.
        CheckpointError: ``out`` already holds a run.
    """
    if last_checkpoint(out) is not None:
        raise CheckpointError(f"{out} already holds a run; choose another folder with -o")
    examined = examine_weights(released)
    if config is None and recipe is None:
        config = _config_beside(examined)
    read = ReleasedConfig()
    if config is not None:
        read = (
            read_rasa_config(config)
            if examined.layout == "albef"
            else read_released_config(config, fork=_fork(examined.layout))
        )
    base = replace(
        recipe or recipe_of(examined, read.dataset, overrides),
        name=out.name,
        about=f"converted from {released.name}",
        weights=str(released),
        expected=None,
    )
    if read.different and base.evaluation_only is None:
        values = ", ".join(f"{name} = {value}" for name, value in read.different.items())
        base = replace(
            base, evaluation_only=f"{config} says {values}, which a recipe cannot express"
        )
    resolved = override(override(base, as_overrides(read.fields)), overrides)
    if not heads:
        resolved = _without_heads(resolved)
    method = assemble(resolved)
    check_method(examined.layout, method.search_parts)
    with warnings.catch_warnings():
        if recipe is None:  # `recipe_of` has already required the user to state the activation
            warnings.filterwarnings("ignore", message=ACTIVATION_UNKNOWN)
        load_clip_weights(method, released, parts=None if heads else method.search_parts)
    save_checkpoint(out, State(), method, torch.optim.AdamW(method.parameters()))
    (out / "recipe.json").write_text(resolved.to_json(), encoding="utf-8")
    return Converted(
        folder=out,
        layout=examined.layout,
        recipe=resolved,
        config=config,
        ignored=read.ignored,
        heads=heads,
    )


def run_to_released(run: Path, out: Path) -> Path:
    """Write the best checkpoint of a run in the format of IRRA and its forks, RDE, or RaSa.

    Args:
        run: The run folder.
        out: The file to write, such as ``best.pth``; a torch file of ``{"model": tensors}``.

    Returns:
        ``out``.

    Raises:
        WeightsError: The image tower of the run is neither a CLIP transformer nor RaSa's.
        CheckpointError: The run has no checkpoint, or ``out`` is a folder.
    """
    if out.is_dir():
        raise CheckpointError(f"expected a file to write, such as {out / 'best.pth'}, got a folder")
    _, method, _ = load_run(run)
    tensors = method.to_released()
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.tmp")
    torch.save({"model": tensors}, unfinished)
    os.replace(unfinished, out)
    return out


def _fork(layout: Layout) -> Fork:
    """Whose options the configuration of a checkpoint has; LPNC's are RDE's."""
    if layout == "itself":
        return "itself"
    return "rde" if layout in SELECTING else "irra"


def as_overrides(fields: Mapping[str, object]) -> list[str]:
    """Format values by dotted name as overrides for :func:`~finegrain.recipe.override`."""
    return [f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()]


def _config_beside(examined: Examined) -> Path | None:
    """The released configuration next to a weight file, or None."""
    # The losses of an ITSELF without token selections are not those of the towers it is read as.
    read = FINE_TUNED - {"itself_global"}
    names = {**dict.fromkeys(read, CONFIG), "albef": RASA_CONFIG}
    name = names.get(examined.layout)
    file = None if name is None else examined.file.parent / name
    return file if file is not None and file.is_file() else None


def _without_heads(recipe: Recipe) -> Recipe:
    """The recipe without the losses that need training heads, then for evaluation only."""
    dropped = sorted(recipe.method.head_losses.intersection(recipe.losses))
    if not dropped:
        return recipe
    losses = {name: weight for name, weight in recipe.losses.items() if name not in dropped}
    return replace(
        recipe,
        losses=losses or {"sdm": 1.0},
        evaluation_only=recipe.evaluation_only
        or f"the training heads of {', '.join(dropped)} were left out (keep them by --heads)",
    )
