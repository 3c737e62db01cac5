from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from finegrain.recipe import Optimizer, Schedule
from finegrain.training.optim import lr_factor, make_optimizer
from finegrain.training.precision import autocast_dtype


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.5), (1, 1.0), (2, 1.0), (11, 0.5), (5, 0.5 * (1 + math.cos(math.pi / 6))), (20, 0.0)],
)
def test_two_steps_of_warm_up_then_half_a_cosine(step, expected):
    assert lr_factor(step, 20, Schedule(warmup=0.1)) == pytest.approx(expected)


def test_the_cosine_ends_at_the_final_share():
    schedule = Schedule(warmup=0.0, final=0.1)
    factors = [lr_factor(step, 50, schedule) for step in range(51)]
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.1)
    assert factors[1:] == sorted(factors[1:], reverse=True)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.05), (1, 1.0), (3, 1.0), (2, 0.5)])
def test_short_schedules_stay_within_the_peak(total, warmup):
    factors = [lr_factor(step, total, Schedule(warmup=warmup)) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_only_matrices_are_decayed():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    model.register_parameter("frozen", frozen)
    config = Optimizer(lr=0.3, betas=(0.8, 0.9), eps=1e-5, weight_decay=0.2)
    decayed, others = make_optimizer(model, config).param_groups
    assert [p.ndim for p in decayed["params"]] == [2]
    assert sorted(p.ndim for p in others["params"]) == [0, 1, 1, 1]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    for group in (decayed, others):
        assert (group["lr"], group["betas"], group["eps"]) == (0.3, (0.8, 0.9), 1e-5)


def test_one_step_is_that_of_the_formula():
    """Loshchilov and Hutter 2019, algorithm 2: the first step has the gradient's sign."""
    weight = nn.Linear(2, 2, bias=False)
    before = weight.weight.detach().clone()
    optimizer = make_optimizer(weight, Optimizer(lr=0.1, weight_decay=0.5, eps=1e-12))
    weight.weight.grad = torch.tensor([[1.0, -2.0], [0.3, -0.1]])
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) - 0.1 * weight.weight.grad.sign()
    torch.testing.assert_close(weight.weight.data, expected)


def test_precision():
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, None),
        ({}, None),
    ],
)
def test_auto_precision_asks_the_processor(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert autocast_dtype("auto", torch.device("cpu")) is expected
