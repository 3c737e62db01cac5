"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from finegrain.recipe import Optimizer, ParameterRule, Schedule

LR_FACTOR = "lr_factor"
"""Key of a parameter group: what a rule multiplied its learning rate by."""


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """Adam or AdamW with a group for each pair of rate and decay that the rules make."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            usual = config.weight_decay if parameter.ndim >= 2 or config.decay_vectors else 0.0
            groups[_ruled(name, usual, config.rules)].append(parameter)
    kind = torch.optim.AdamW if config.decoupled else torch.optim.Adam
    return kind(
        [
            {
                "params": parameters,
                "lr": factor * config.lr,
                "weight_decay": decay,
                LR_FACTOR: factor,
            }
            for (factor, decay), parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[LR_FACTOR]


def lr_factor(step: int, schedule: Schedule, *, per_epoch: int, total: int) -> float:
    """What the peak learning rate is multiplied by at a step counted from 0.

    Linear from ``initial`` to 1 over the warm-up, then half a cosine from 1 to ``final`` that
    would be reached when the run ends. By steps, the first one is one step up already; by
    epochs, the first has ``initial`` itself (the schedule of the re-identification baselines
    since fast-reid).

    Args:
        per_epoch: Steps an epoch.
        total: Steps of the run.
    """
    if schedule.by_epoch:
        place, climbed, end = step // per_epoch, step // per_epoch, schedule.epochs
    else:
        place, climbed, end = step, step + 1, total
    warm = round(schedule.warmup * end)
    if place < warm:
        return schedule.initial + (1 - schedule.initial) * climbed / warm
    done = (place - warm) / max(1, end - warm)
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done))


def _ruled(name: str, decay: float, rules: Sequence[ParameterRule]) -> tuple[float, float]:
    """Multiple of the learning rate, and weight decay, of a parameter."""
    factor = 1.0
    for rule in rules:
        if fnmatchcase(name, rule.names):
            factor = factor if rule.lr is None else rule.lr
            decay = decay if rule.weight_decay is None else rule.weight_decay
    return factor, decay
