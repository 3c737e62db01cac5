"""Checkpoints: safetensors and JSON, complete or absent, and exact to resume from.

A run folder::

    recipe.json                  the resolved recipe
    metrics.jsonl                one line an evaluation
    tensorboard/
    checkpoints/000120/          after 120 steps
        model.safetensors
        optimizer.safetensors    moments, and the random state
        state.json               counters and the best checkpoint so far
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finegrain.errors import CheckpointError
from finegrain.models.weights.renaming import check_fits

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands.

    Attributes:
        step: Optimiser steps done.
        best_step: Step of the checkpoint that is best on the validation split.
        best_rank1: Its text-to-image rank1 there, in percent.
    """

    step: int = 0
    best_step: int | None = None
    best_rank1: float | None = None


def folder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step:06d}"


def save_checkpoint(
    run: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Path:
    """Write the checkpoint of a step, then drop all but it and the best one."""
    folder = folder_of(run, state.step)
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, unfinished / MODEL)
    save_file(_optimizer_tensors(optimizer), unfinished / OPTIMIZER)
    (unfinished / STATE).write_text(json.dumps(asdict(state)) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    keep = {folder, folder_of(run, state.best_step or 0)}
    for other in set(_folders(run)) - keep:
        shutil.rmtree(other)
    return folder


def last_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or None when it has none."""
    return max(_folders(run), key=lambda folder: int(folder.name), default=None)


def best_checkpoint(run: Path) -> Path:
    """The checkpoint that validation selected, or the newest without a validation split.

    Raises:
        CheckpointError: The run has no checkpoint.
    """
    last = last_checkpoint(run)
    if last is None:
        raise CheckpointError(
            f"{run} has no checkpoint; train one with: finegrain train RECIPE -o {run}"
        )
    best = read_state(last).best_step
    return last if best is None else folder_of(run, best)


def read_state(folder: Path) -> State:
    try:
        return State(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / STATE} is damaged: {error}") from error


def load_model(folder: Path, model: nn.Module) -> None:
    """Fill a model from a checkpoint, exactly.

    Raises:
        CheckpointError: The file is missing or damaged.
        WeightsError: It does not fit the model.
    """
    tensors = _read(folder / MODEL)
    check_fits(tensors, model.state_dict())
    model.load_state_dict(tensors)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Fill an optimiser and the random state from a checkpoint."""
    tensors = _read(folder / OPTIMIZER)
    torch.set_rng_state(tensors.pop("rng").to(torch.uint8))
    if "rng_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors.pop("rng_cuda"))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if index.isdecimal():
            own = parameters[int(index)]
            # The fused kernel walks parameter and moment side by side in memory: a file's
            # plain order beside channels-last filters would mix them up, silently.
            laid_out = torch.empty_like(own).copy_(tensor) if tensor.shape == own.shape else tensor
            moments.setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {
        f"{index}.{key}": tensor.contiguous()
        for index, moments in optimizer.state_dict()["state"].items()
        for key, tensor in moments.items()
        # Muon also notes which of its two ways a parameter goes, and finds that out again.
        if isinstance(tensor, Tensor)
    }
    tensors["rng"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    return tensors


def _folders(run: Path) -> list[Path]:
    return [f for f in (run / "checkpoints").glob("[0-9]*") if (f / STATE).is_file()]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error
