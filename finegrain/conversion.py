"""Released checkpoints to run folders, and run folders to released checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finegrain.checkpoint import State, last_checkpoint, save_checkpoint
from finegrain.data.datasets import CuhkPedes
from finegrain.errors import CheckpointError
from finegrain.methods import IrraConfig, Rasa, RasaConfig, Rde
from finegrain.models import TextConfig, VitConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.models.weights import (
    TRAINING_ONLY,
    export_irra,
    export_rasa,
    export_rde,
    is_of_rasa,
    load_clip_weights,
)
from finegrain.models.weights.released_config import read_released_config
from finegrain.recipe import Recipe, override
from finegrain.run import assemble, load_run

CONFIG = "configs.yaml"
_NEED_HEADS = {"id", "mlm", "prd", "mrtd"}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What became of a released checkpoint.

    Attributes:
        folder: The run folder.
        recipe: Its recipe.
        config: The released configuration that was read, if there was one.
        ignored: Fields of it that no recipe has.
        heads: Whether the training heads were taken over.
    """

    folder: Path
    recipe: Recipe
    config: Path | None
    ignored: tuple[str, ...]
    heads: bool

    def __str__(self) -> str:
        what = "towers and training heads" if self.heads else "towers, and no training heads"
        lines = [f"{self.folder}: {what}, of {self.recipe.weights}"]
        if self.config is not None:
            lines.append(f"read {self.config}, and ignored: {', '.join(self.ignored) or 'nothing'}")
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
    """Make a run folder of a released checkpoint, at step 0 of its recipe.

    What evaluates, exports and trains a run does so with this one. The fields of the
    recipe are, each over the one before: those of ``recipe``, or else of RaSa where the file
    is of it or of ALBEF, and of IRRA on CLIP ViT-B/16 where not, for CUHK-PEDES; those that
    ``config`` states; ``overrides``.

    Args:
        released: A weight file; see :func:`~finegrain.models.weights.load_clip_weights`.
        out: The run folder.
        config: The released ``configs.yaml``; where neither it nor a recipe is given, the
            one beside the weights is read if there is one.
        recipe: What to start from; give one to train on from the weights.
        overrides: Such as ``"data.root=/data/CUHK-PEDES"``.
        heads: Take over the training heads too, which must then fit exactly. Without them
            the losses that need them leave the recipe; search needs neither.

    Raises:
        WeightsError: The weights do not fit, or a file is damaged or unsafe.
        RecipeError: A field or its value is not one of a recipe.
        CheckpointError: ``out`` already holds a run.
    """
    if last_checkpoint(out) is not None:
        raise CheckpointError(f"{out} already holds a run; choose another folder by -o")
    if config is None and recipe is None and (released.parent / CONFIG).is_file():
        config = released.parent / CONFIG
    fields, ignored = list[str](), tuple[str, ...]()
    if config is not None:
        read = read_released_config(config)
        fields = as_overrides(read.fields)
        ignored = read.ignored
    base = replace(
        recipe or (_rasa() if is_of_rasa(released) else _irra()),
        name=out.name,
        about=f"converted from {released.name}",
        weights=str(released),
        expected=None,
    )
    resolved = override(override(base, fields), overrides)
    if not heads:
        resolved = _without_heads(resolved)
    method = assemble(resolved)
    load_clip_weights(method, released, fresh=() if heads else TRAINING_ONLY)
    save_checkpoint(out, State(), method, torch.optim.AdamW(method.parameters()))
    (out / "recipe.json").write_text(resolved.to_json(), encoding="utf-8")
    return Converted(folder=out, recipe=resolved, config=config, ignored=ignored, heads=heads)


def run_to_released(run: Path, out: Path) -> Path:
    """Write the selected checkpoint of a run as IRRA and its forks, RDE, or RaSa read it.

    Args:
        run: The run folder.
        out: A file such as ``best.pth``: a torch file of ``{"model": tensors}``.

    Raises:
        WeightsError: The run's image tower is neither a CLIP transformer nor RaSa's.
        CheckpointError: The run has no checkpoint, or ``out`` is a folder.
    """
    if out.is_dir():
        raise CheckpointError(f"expected a file to write, such as {out / 'best.pth'}, got a folder")
    _, method, _ = load_run(run)
    write = {Rde: export_rde, Rasa: export_rasa}.get(type(method), export_irra)
    tensors = write(method)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.tmp")
    torch.save({"model": tensors}, unfinished)
    os.replace(unfinished, out)
    return out


def as_overrides(fields: Mapping[str, object]) -> list[str]:
    """Values by dotted names, as :func:`~finegrain.recipe.override` takes and checks them."""
    return [f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()]


def _irra() -> Recipe:
    """What search needs to know; how IRRA is trained is in ``recipes/irra_cuhk_pedes.py``."""
    return Recipe(
        name="irra",
        about="IRRA on CLIP ViT-B/16",
        data=CuhkPedes(),
        method=IrraConfig(image=VitConfig(), text=TextConfig()),
        losses={"sdm": 1.0, "id": 1.0, "mlm": 1.0},
    )


def _rasa() -> Recipe:
    """As for IRRA; its training is in ``recipes/rasa_cuhk_pedes.py``."""
    return Recipe(
        name="rasa",
        about="RaSa on ALBEF",
        data=CuhkPedes(),
        method=RasaConfig(
            text=AlbefTextConfig(vocabulary_file="weights/bert-base-uncased/vocab.txt")
        ),
        losses={"cl": 0.5, "pitm": 1.0, "mlm": 1.0, "prd": 0.5, "mrtd": 0.5},
        weak_positives=0.1,
    )


def _without_heads(recipe: Recipe) -> Recipe:
    kept = {name: weight for name, weight in recipe.losses.items() if name not in _NEED_HEADS}
    return replace(recipe, losses=kept or {"sdm": 1.0})
