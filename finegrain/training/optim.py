"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from finegrain.recipe import Optimizer, Schedule


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """AdamW whose weight decay leaves gains, biases and scalars alone."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def lr_factor(step: int, total: int, schedule: Schedule) -> float:
    """What the peak learning rate is multiplied by at a step counted from 0.

    Linear from ``1 / warm`` to 1 over the first ``warm`` steps, then half a cosine from 1
    to ``final`` that would be reached at step ``total``.
    """
    warm = max(1, round(schedule.warmup * total))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done))
