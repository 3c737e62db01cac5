"""The optimiser and the learning-rate schedule of a recipe."""

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
"""Key of a parameter group: the factor of its learning rate, from the rules of the recipe."""

_EMBEDDINGS = ("_embedding", "pos_embed", "_token")
"""Name suffixes of embeddings that are direct parameters of a tower."""


class Share(NamedTuple):
    """Options that the parameters of a group share.

    Attributes:
        factor: Factor of the learning rate.
        decay: Weight decay.
        is_matrix: Whether Muon updates them. True for matrices and filters, but not for
            embeddings and tokens, whose rows are unrelated.
    """

    factor: float
    decay: float
    is_matrix: bool


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe, with one parameter group for each :class:`Share`."""
    matrices = _matrices(model) if config.kind == "muon" else frozenset()
    groups: dict[Share, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = _share(name, parameter, config, is_matrix=id(parameter) in matrices)
            groups[share].append(parameter)
    param_groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": share.factor * config.lr,
            "weight_decay": share.decay,
            LR_FACTOR: share.factor,
        }
        for share, parameters in groups.items()
    ]
    if config.kind == "muon":
        for group, share in zip(param_groups, groups, strict=True):
            group["is_matrix"] = share.is_matrix
        return Muon(param_groups, betas=config.betas, eps=config.eps)
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(param_groups, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, rate: Callable[[float], float]) -> None:
    """Set the learning rate of each group to ``rate(factor)``, with the factor of its rules."""
    for group in optimizer.param_groups:
        group["lr"] = rate(group[LR_FACTOR])


def set_eps(optimizer: torch.optim.Optimizer, config: Optimizer, step: int) -> None:
    """Apply ``eps`` as TensorFlow does, if the recipe sets ``eps_uncorrected``.

    At step ``t``, counted from 1, PyTorch divides by ``sqrt(v / (1 - b^t)) + eps``. TensorFlow
    divides by ``(sqrt(v) + eps) / sqrt(1 - b^t)``, which is the same with a larger ``eps``.

    Args:
        optimizer: The optimiser, changed in place.
        config: Options of the recipe.
        step: Number of the step, from 0.
    """
    if config.eps_uncorrected:
        for group in optimizer.param_groups:
            group["eps"] = config.eps / math.sqrt(1 - config.betas[1] ** (step + 1))


def lr_factor(
    step: int, schedule: Schedule, *, per_epoch: int, total: int, peak: float = 1.0
) -> float:
    """Factor of the recipe's learning rate at a step.

    The rate grows linearly from the initial rate to the peak in the warm-up. It then follows half
    a cosine from the peak to the final rate, which is reached at the end of the run. With
    ``schedule.by_epoch``, the first epoch has the initial rate and the first epoch after the
    warm-up has the peak, as in re-identification baselines since fast-reid. Otherwise
    ``schedule.from_initial`` decides whether the first step has the initial rate.

    Args:
        step: Number of the step, from 0.
        schedule: Options of the recipe.
        per_epoch: Number of steps per epoch.
        total: Number of steps of the run.
        peak: Factor at the peak, from the rule of a parameter.
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
    """``id`` of each parameter that Muon updates."""
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return frozenset(
        id(parameter)
        for name, parameter in model.named_parameters()
        if _suits_muon(parameter) and id(parameter) not in embedded
        if not name.endswith(_EMBEDDINGS)
    )


def _suits_muon(parameter: nn.Parameter) -> bool:
    """Whether an orthogonal update makes sense, by the rule of timm's Muon.

    It excludes vectors, filters of one channel, heads of a few classes, and classifiers of a
    whole vocabulary.
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
