"""Checkpoints of a run: safetensors and JSON, written atomically, with all state to resume.

A run folder::

    recipe.json                  the resolved recipe
    metrics.jsonl                one line per evaluation
    tensorboard/
    checkpoints/000120/          the state after 120 steps
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
from safetensors.torch import save_file
from torch import Tensor, nn

from finegrain.errors import CheckpointError, WeightsError
from finegrain.models.low_rank import merged
from finegrain.zoo.files import read_safetensors
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
"""Error numbers of a file system that cannot be written to."""

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """Progress of a run.

    Attributes:
        step: Number of optimiser steps done.
        best_step: Step of the checkpoint that is best on the validation split.
        best_rank1: Text-to-image rank1 of that checkpoint on this split, in percent.
    """

    step: int = 0
    best_step: int | None = None
    best_rank1: float | None = None


def folder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step:06d}"


def save_checkpoint(
    run: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Path:
    """Write the checkpoint of a step, then delete all others except the best one.

    Files are flushed to the disk before they are renamed to their final names, and old
    checkpoints are deleted last. A power cut at any moment leaves a complete checkpoint.

    Args:
        run: The run folder.
        state: Progress of the run.
        model: The model; all of its state dict is written.
        optimizer: The optimiser; its moments are written.

    Returns:
        The folder of the checkpoint.

    Raises:
        CheckpointError: It cannot be written, for example on a full disk. Older checkpoints are
            not changed.
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
        current = {folder, folder_of(run, state.best_step or 0)}
        for other in set(_folders(run)) - current:
            shutil.rmtree(other)
    return folder


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Turn errors of writing a run folder into a :class:`CheckpointError` with advice.

    Raises:
        CheckpointError: The file system is full or refuses the write.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _REFUSALS:
            raise
        last = last_checkpoint(run)
        newest = f"{last} is complete" if last else "there is no checkpoint yet"
        raise CheckpointError(
            f"cannot write into {run}: {error}. Free some space or check the permissions, and "
            f"continue with --resume ({newest}); or choose another folder with -o."
        ) from error


def _write(folder: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / MODEL)
    save_file(_optimizer_tensors(optimizer), folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(asdict(state)) + "\n")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and writes its entries in order
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or None if it has none."""
    return max(_folders(run), key=lambda folder: int(folder.name), default=None)


def best_checkpoint(run: Path) -> Path:
    """The checkpoint that is best on validation, or the newest without a validation split.

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


def load_model(folder: Path, model: nn.Module, *, merge: bool = False) -> None:
    """Load the weights of a checkpoint into a model.

    Args:
        folder: The checkpoint.
        model: The model, changed in place.
        merge: Add low-rank updates of the checkpoint to their matrices. By default the model has
            the same updates.

    Raises:
        CheckpointError: The file is missing or damaged.
        WeightsError: The tensors do not fit the model exactly.
    """
    tensors = _read(folder / MODEL)
    if merge:
        tensors = merged(tensors)
    check_fits(tensors, model.state_dict())
    model.load_state_dict(tensors)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore an optimiser and the random state from a checkpoint.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
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
            # The fused kernel assumes that a parameter and its moment have the same memory
            # layout. A contiguous moment with channels-last filters would silently be wrong.
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
        return read_safetensors(path)
    except WeightsError as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error
