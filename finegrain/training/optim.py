"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from finegrain.recipe import Optimizer, Schedule
from finegrain.training.muon import Muon

LR_FACTOR = "lr_factor"
"""Key of a parameter group: what a rule multiplied its learning rate by."""

_EMBEDDINGS = ("_embedding", "pos_embed", "_token")
"""Ends of the names of embeddings that are parameters of a tower itself."""


class Share(NamedTuple):
    """What the parameters of a group have in common.

    Attributes:
        factor: Multiple of the learning rate.
        decay: Weight decay.
        is_matrix: Whether Muon takes them: matrices and filters, but not embeddings and
            tokens, whose rows have nothing to do with each other.
    """

    factor: float
    decay: float
    is_matrix: bool


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of a recipe, with a group for each share that its rules make."""
    matrices = _matrices(model) if config.kind == "muon" else frozenset()
    groups: dict[Share, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = _share(name, parameter, config, is_matrix=id(parameter) in matrices)
            groups[share].append(parameter)
    given: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": share.factor * config.lr,
            "weight_decay": share.decay,
            LR_FACTOR: share.factor,
        }
        for share, parameters in groups.items()
    ]
    if config.kind == "muon":
        for group, share in zip(given, groups, strict=True):
            group["is_matrix"] = share.is_matrix
        return Muon(given, betas=config.betas, eps=config.eps)
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(given, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, rate: Callable[[float], float]) -> None:
    """Set the learning rate of every group to ``rate`` of the factor that its rules made."""
    for group in optimizer.param_groups:
        group["lr"] = rate(group[LR_FACTOR])


def set_eps(optimizer: torch.optim.Optimizer, config: Optimizer, step: int) -> None:
    """Keep ``eps`` out of the correction of the second moment where the recipe says so.

    PyTorch divides by ``sqrt(v / (1 - b^t)) + eps`` at step ``t``, counted from 1, and TensorFlow
    by ``(sqrt(v) + eps) / sqrt(1 - b^t)``.

    Args:
        step: Counted from 0.
    """
    if config.eps_uncorrected:
        for group in optimizer.param_groups:
            group["eps"] = config.eps / math.sqrt(1 - config.betas[1] ** (step + 1))


def lr_factor(
    step: int, schedule: Schedule, *, per_epoch: int, total: int, peak: float = 1.0
) -> float:
    """The multiple of the recipe's learning rate at a step counted from 0.

    Linear from the initial rate to the peak over the warm-up, then half a cosine from the peak
    to the final rate, which would be reached when the run ends. By epochs, the first has the
    initial rate itself and the one after the warm-up the peak (the schedule of the
    re-identification baselines since fast-reid). By steps, ``schedule.from_initial`` decides.

    Args:
        per_epoch: Steps an epoch.
        total: Steps of the run.
        peak: The multiple at the peak, which the rule of a parameter states.
    """
    own = 1.0 if schedule.same_ends else peak
    initial, final = schedule.initial * own, schedule.final * own
    if step < schedule.hold:
        return initial
    place, end = (step // per_epoch, schedule.epochs) if schedule.by_epoch else (step, total)
    if schedule.decay == "linear":
        warm = int(schedule.warmup * end)
        risen = place / warm if place < warm else 1.0
        line = peak + (final - peak) * place / max(1, end)
        return line * (schedule.initial + (1 - schedule.initial) * risen)
    warm = round(schedule.warmup * end)
    if place < warm:
        if schedule.by_epoch:
            climbed = place / warm
        elif schedule.from_initial:
            climbed = place / max(1, warm - 1)
        else:
            climbed = (place + 1) / warm
        return initial + (peak - initial) * climbed
    done = (place - warm) / max(1, end - warm)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


def _matrices(model: nn.Module) -> frozenset[int]:
    """``id`` of each parameter that Muon takes."""
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return frozenset(
        id(parameter)
        for name, parameter in model.named_parameters()
        if _suits_muon(parameter) and id(parameter) not in embedded
        if not name.endswith(_EMBEDDINGS)
    )


def _suits_muon(parameter: nn.Parameter) -> bool:
    """Whether an orthogonal step means something: timm's rule for its own Muon.

    Vectors, filters of one channel, heads of a few classes and classifiers of a whole vocabulary
    are no matrices in this sense.
    """
    if parameter.ndim < 2 or 1 in parameter.shape[:2]:
        return False
    rows, columns = parameter.flatten(1).shape
    return min(rows, columns) >= 4 and max(rows, columns) <= 128 * min(rows, columns)


def _share(name: str, parameter: nn.Parameter, config: Optimizer, *, is_matrix: bool) -> Share:
    factor = 1.0
    decay = config.weight_decay if parameter.ndim >= 2 or config.decay_vectors else 0.0
    for rule in config.rules:
        if fnmatchcase(name, rule.names):
            factor = factor if rule.lr is None else rule.lr
            decay = decay if rule.weight_decay is None else rule.weight_decay
    return Share(factor, decay, is_matrix)
