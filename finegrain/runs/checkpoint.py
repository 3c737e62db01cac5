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

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finegrain.errors import CheckpointError
from finegrain.zoo.renaming import check_fits

_REFUSALS = {
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EROFS",
        "EACCES",
        "EPERM",
        "EIO",
        "ENOTDIR",
        "EEXIST",
    )
}
"""Error numbers of a file system that does not let itself be written to."""

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
    """Write the checkpoint of a step, then drop all but it and the best one.

    Files and folders reach the disk before they get their names, and the new checkpoint before
    an old one is dropped: a power cut at any moment leaves one that is whole.

    Raises:
        CheckpointError: It cannot be written, such as on a full disk; older ones are as before.
    """
    folder = folder_of(run, state.step)
    unfinished, outdated = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "old"))
    with writing(run):
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            _write(unfinished, state, model, optimizer)
            if folder.exists():
                os.replace(folder, outdated)
            os.replace(unfinished, folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(outdated, ignore_errors=True)
        keep = {folder, folder_of(run, state.best_step or 0)}
        for other in set(_folders(run)) - keep:
            shutil.rmtree(other)
    return folder


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Say what to do where a run folder cannot be written to.

    Raises:
        CheckpointError: The file system refuses.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _REFUSALS:
            raise
        last = last_checkpoint(run)
        kept = f"{last} is whole" if last else "there is no checkpoint yet"
        raise CheckpointError(
            f"cannot write into {run}: {error}. Make room there, or see that you may write to it, "
            f"and go on by --resume ({kept}); or choose another folder by -o."
        ) from error


def _write(folder: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / MODEL)
    save_file(_optimizer_tensors(optimizer), folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(asdict(state)) + "\n")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folder, and writes names in order
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
