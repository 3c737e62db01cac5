"""Muon compared with timm's, which it follows in bf16, and with the formula in fp64."""

from __future__ import annotations

import pytest
import timm.optim.muon as theirs
import torch

from finegrain.runtime import processor
from finegrain.training.muon import COEFFICIENTS, MOMENTUM, Muon

SHAPES = [(6, 5), (5, 6), (4, 3, 3, 3), (16, 4, 1, 1)]


def stepped(make, shapes, *, steps=3, layout=torch.contiguous_format, **group):
    draw = torch.Generator().manual_seed(0)
    parameters = [
        torch.nn.Parameter(
            torch.randn(shape, generator=draw).to(
                memory_format=layout if len(shape) == 4 else torch.contiguous_format
            )
        )
        for shape in shapes
    ]
    optimizer = make([{"params": parameters, "lr": 0.1, "weight_decay": 0.3, **group}])
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()
    return parameters


def ours(groups):
    return Muon(groups, betas=(0.9, 0.98), eps=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_in_bf16_equal_timms(layout, monkeypatch):
    monkeypatch.setattr(processor, "computes_bf16", lambda device: True)
    mine = stepped(ours, SHAPES, layout=layout, is_matrix=True)
    peers = stepped(lambda g: theirs.Muon(g, eps=1e-6, nesterov=True), SHAPES, layout=layout)
    for one, other in zip(mine, peers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_in_fp32_equals_the_formula(shape, monkeypatch):
    """Jordan et al. 2024: Nesterov's momentum, five odd polynomials of the singular values."""
    monkeypatch.setattr(processor, "computes_bf16", lambda device: False)
    (before,) = stepped(ours, [shape], steps=0, is_matrix=True)
    (after,) = stepped(ours, [shape], steps=1, is_matrix=True)
    draw = torch.Generator().manual_seed(0)
    torch.randn(shape, generator=draw)
    gradient = torch.randn(shape, generator=draw).double().flatten(1)
    ahead = (1 - MOMENTUM) * gradient + MOMENTUM * (1 - MOMENTUM) * gradient
    u, s, v = torch.linalg.svd(ahead, full_matrices=False)
    s = s / s.norm()
    for a, b, c in COEFFICIENTS:
        s = a * s + b * s**3 + c * s**5
    update = 0.2 * max(gradient.shape) ** 0.5 * (u * s) @ v
    expected = before.double() * (1 - 0.1 * 0.3) - 0.1 * update.view(shape)
    torch.testing.assert_close(after.double(), expected, atol=1e-4, rtol=1e-4)


def test_parameters_that_are_not_matrices_are_updated_by_adamw():
    shapes = [(7,), (5, 3)]
    mine = stepped(ours, shapes, is_matrix=False)
    peers = stepped(lambda g: torch.optim.AdamW(g, betas=(0.9, 0.98), eps=1e-6), shapes)
    for one, other in zip(mine, peers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_a_parameter_without_a_gradient_does_not_change():
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    for is_matrix in (True, False):
        group = {"params": [parameter], "lr": 0.1, "weight_decay": 0.3, "is_matrix": is_matrix}
        ours([group]).step()
    assert torch.equal(parameter, torch.ones(4, 4))
