"""Strict renaming of tensors: no tensor is skipped, and none of the model's is left unfilled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from finegrain.errors import WeightsError

SHOWN = 10


def rename(
    state: Mapping[str, Tensor], theirs_to_ours: Mapping[str, str], ignore: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Rename tensors by a table of patterns.

    Args:
        state: The state dict to rename.
        theirs_to_ours: New names by pattern. ``{}`` in a pattern matches any part of a name; the
            n-th ``{}`` in the new name is replaced by the n-th match. The first pattern that
            matches is used.
        ignore: Patterns of entries to leave out, which hold no weights.

    Raises:
        WeightsError: A name matches no pattern (up to ten are listed), or two tensors get the
            same name.

    Example:
        >>> import torch
        >>> from finegrain.zoo.renaming import rename
        >>> rename({"visual.proj": torch.ones(2)}, {"visual.{}": "image_tower.{}"})
        {'image_tower.proj': tensor([1., 1.])}
    """
    table = [(_compiled(theirs), ours) for theirs, ours in theirs_to_ours.items()]
    ignored = [_compiled(pattern) for pattern in ignore]
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        if any(pattern.fullmatch(name) for pattern in ignored):
            continue
        hits = ((pattern.fullmatch(name), ours) for pattern, ours in table)
        ours = next((ours.format(*hit.groups()) for hit, ours in hits if hit), None)
        if ours is None:
            unknown.append(name)
        elif ours in renamed:
            raise WeightsError(f"the checkpoint has {ours} twice, the second time as {name}")
        else:
            renamed[ours] = tensor
    if unknown:
        raise WeightsError(
            f"the checkpoint has {len(unknown)} tensors that this model does not know: "
            f"{_shown(unknown)}. Is it a checkpoint of another model?"
        )
    return renamed


def check_fits(
    state: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    *,
    advice: str = "Choose the tower sizes of the checkpoint in the recipe.",
) -> None:
    """Check that a state dict fits a model exactly.

    Args:
        state: The tensors to load.
        model: The state dict of the model.
        advice: Last sentence of the error message.

    Raises:
        WeightsError: Tensors are missing, left over, or of another shape.
    """
    missing = [name for name in model if name not in state]
    extra = [name for name in state if name not in model]
    misfit = [
        f"{name} {tuple(state[name].shape)} for {tuple(model[name].shape)}"
        for name in model
        if name in state and state[name].shape != model[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_shown(names)}"
        for names, what in (
            (missing, "missing"),
            (extra, "left over"),
            (misfit, "of another shape"),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"the weights do not fit the model: {'; '.join(problems)}. {advice}")


def parts_of(state: Collection[str]) -> list[str]:
    """The parts of a model, which are the first components of its tensor names.

    Example:
        >>> from finegrain.zoo.renaming import parts_of
        >>> parts_of(["image_tower.proj", "image_tower.conv1.weight", "logit_scale"])
        ['image_tower', 'logit_scale']
    """
    return list(dict.fromkeys(name.partition(".")[0] for name in state))


def only_parts(parts: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that belong to the given parts."""
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] in parts}


def without_parts(parts: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that do not belong to the given parts."""
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in parts}


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(re.escape(part) for part in pattern.split("{}")))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
