"""The Muon optimiser, in the native precision of the processor.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim.muon import get_lr_scale, zeropower_via_newtonschulz
from torch import Tensor
from torch.optim.adamw import adamw

from finegrain.runtime import processor

MOMENTUM = 0.95

COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
"""Coefficients of the Newton-Schulz iteration, one row per step (Cesista et al. 2025)."""


class Muon(torch.optim.Optimizer):
    """Orthogonal updates for matrices and filters, and AdamW for all other parameters.

    timm's Muon always iterates in bf16, which most CPUs emulate. Its step on a small model then
    takes longer than forward and backward together. The update of a matrix has the root mean
    square of an AdamW update (Liu et al. 2025, section 2.2, https://arxiv.org/abs/2502.16982),
    so both use the same learning rate.

    Args:
        groups: Parameter groups with ``params``, ``lr``, ``weight_decay`` and ``is_matrix``.
        betas: Decay rates of AdamW's moments.
        eps: Epsilon of AdamW, and the smallest norm by which a gradient is divided.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, {"betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["is_matrix"]:
                for parameter in parameters:
                    self._step_matrix(parameter, group)
            elif parameters:
                self._step_others(parameters, group)

    def _step_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = parameter.grad.lerp(momentum, MOMENTUM)
        orthogonal = zeropower_via_newtonschulz(
            ahead.flatten(1),
            len(COEFFICIENTS),
            COEFFICIENTS,
            eps=group["eps"],
            dtype=processor.matmul_dtype(parameter.device),
        )
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = get_lr_scale(orthogonal.shape, "match_rms_adamw")
        parameter.add_(orthogonal.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
