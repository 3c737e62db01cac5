from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim.muon import _is_suitable_for_muon
from torch import nn

from finegrain import load_recipe
from finegrain.recipe import Optimizer, ParameterRule, Schedule
from finegrain.runtime import processor
from finegrain.training.optim import lr_factor, make_optimizer, set_eps, set_lr
from finegrain.training.precision import autocast_dtype

RASA = load_recipe(Path(__file__).parents[3] / "recipes" / "rasa_cuhk_pedes.py")


def by_step(step, total, **schedule):
    return lr_factor(step, Schedule(**schedule), per_epoch=3, total=total)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.5), (1, 1.0), (2, 1.0), (11, 0.5), (5, 0.5 * (1 + math.cos(math.pi / 6))), (20, 0.0)],
)
def test_the_schedule_is_a_warm_up_and_half_a_cosine(step, expected):
    assert by_step(step, 20, warmup=0.1) == pytest.approx(expected)


def test_the_cosine_ends_at_the_final_share():
    factors = [by_step(step, 50, warmup=0.0, final=0.1) for step in range(51)]
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.1)
    assert factors[1:] == sorted(factors[1:], reverse=True)


def test_a_warm_up_may_start_above_zero():
    factors = [by_step(step, 40, warmup=0.1, initial=0.2) for step in range(5)]
    assert factors == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_a_warm_up_may_start_with_its_first_rate():
    """As in TBPS-CLIP: numpy.linspace from the first rate to the peak, then half a cosine."""
    warm, total = 8, 40
    after = np.arange(total - warm)
    cosine = 0.05 + 0.5 * (1 - 0.05) * (1 + np.cos(np.pi * after / len(after)))
    expected = [*np.linspace(0.01, 1, warm), *cosine]
    result = [
        by_step(step, total, warmup=0.2, initial=0.01, from_initial=True, final=0.05)
        for step in range(total)
    ]
    assert result == pytest.approx(expected, rel=1e-12)
    assert by_step(0, 5, warmup=0.2, initial=0.01, from_initial=True) == 0.01


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.05), (1, 1.0), (3, 1.0), (2, 0.5)])
def test_short_schedules_stay_within_the_peak(total, warmup):
    factors = [by_step(step, total, warmup=warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_by_epoch_the_rate_is_constant_within_one():
    """As in IRRA: five epochs from a tenth, then half a cosine over the other fifty-five."""
    schedule = Schedule(epochs=60, warmup=5 / 60, initial=0.1, by_epoch=True)

    def factor(step):
        return lr_factor(step, schedule, per_epoch=7, total=420)

    assert [factor(7 * epoch) for epoch in range(6)] == pytest.approx(
        [0.1, 0.28, 0.46, 0.64, 0.82, 1]
    )
    for epoch in (0, 3, 40, 59):
        assert len({factor(7 * epoch + step) for step in range(7)}) == 1
    assert factor(7 * 40) == pytest.approx(0.5 * (1 + math.cos(math.pi * 35 / 55)))


def literal_timm_rate(epoch, base, *, epochs, warmup, warmup_lr, min_lr):
    """timm's cosine schedule with a warm-up before it, for one parameter group."""
    if epoch < warmup:
        return warmup_lr + epoch * (base - warmup_lr) / warmup
    return min_lr + 0.5 * (base - min_lr) * (1 + math.cos(math.pi * (epoch - warmup) / epochs))


@given(
    epoch=st.integers(0, 29),
    step=st.integers(0, 1309),
    peak=st.sampled_from([1.0, 10.0]),
)
def test_rates_of_rasa_equal_those_of_the_released_scheduler(epoch, step, peak):
    """The released code sets epoch 1 after step 100 of epoch 0, and each later epoch before its
    start."""
    asked = epoch + 1 if epoch else int(step > 100)
    expected = literal_timm_rate(
        asked, 1e-5 * peak, epochs=30, warmup=1, warmup_lr=1e-5, min_lr=1e-6
    )
    factor = lr_factor(
        1310 * epoch + step, RASA.schedule, per_epoch=1310, total=30 * 1310, peak=peak
    )
    assert RASA.optimizer.lr * factor == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 1e-4), (20, 2.575e-5), (25, 7.63e-6), (29, 1.27e-6)]
)
def test_heads_of_rasa_have_their_own_rates(epoch, expected):
    step = 1310 * epoch + 200
    factor = lr_factor(step, RASA.schedule, per_epoch=1310, total=30 * 1310, peak=10.0)
    assert RASA.optimizer.lr * factor == pytest.approx(expected, rel=1e-3)


def test_by_default_a_schedule_is_relative_to_the_peak():
    for step in range(20):
        own = by_step(step, 20, warmup=0.2, initial=0.3, final=0.1)
        tenfold = lr_factor(
            step, Schedule(warmup=0.2, initial=0.3, final=0.1), per_epoch=3, total=20, peak=10.0
        )
        assert tenfold == pytest.approx(10 * own)


def test_a_warm_up_may_start_from_one_rate_for_all_parameters():
    schedule = Schedule(epochs=10, warmup=0.2, initial=0.5, by_epoch=True, same_ends=True)
    factors = [lr_factor(s, schedule, per_epoch=1, total=10, peak=10.0) for s in range(3)]
    assert factors == pytest.approx([0.5, 5.25, 10.0])


@given(st.integers(1, 400), st.floats(0, 1), st.integers(0, 400))
def test_linear_decay_equals_that_of_berts_released_code(total, warmup, step):
    """The decayed rate times the completed share of the warm-up."""
    decayed = 1 - min(step, total) / total
    warm = int(total * warmup)
    expected = decayed * (step / warm if step < warm else 1)
    got = by_step(min(step, total), total, warmup=warmup, decay="linear")
    if step <= total:
        assert got == pytest.approx(expected)


def test_linear_decay_starts_at_the_initial_share_and_ends_at_the_final_one():
    def factor(step):
        return by_step(step, 100, warmup=0.1, initial=0.5, final=0.2, decay="linear")

    assert factor(0) == pytest.approx(0.5)
    assert factor(10) == pytest.approx(1 - 0.8 * 0.1)
    assert factor(100) == pytest.approx(0.2)


def tensorflow_adam(weight, gradients, *, lr, betas, eps):
    """TensorFlow 1's AdamOptimizer, number by number; eps is added before the bias correction."""
    (b1, b2), m, v = betas, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        weight -= lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (math.sqrt(v) + eps)
    return weight


@given(st.lists(st.floats(-1e-3, 1e-3), min_size=1, max_size=8), st.booleans())
def test_an_uncorrected_epsilon_equals_tensorflows(gradients, uncorrected):
    weight = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    holder = nn.ParameterList([weight])
    config = Optimizer(
        kind="adam", lr=0.1, betas=(0.9, 0.98), eps=1e-3, eps_uncorrected=uncorrected,
        weight_decay=0.0,
    )  # fmt: skip
    optimizer = make_optimizer(holder, config)
    for step, gradient in enumerate(gradients):
        set_eps(optimizer, config, step)
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    expected = tensorflow_adam(0.5, gradients, lr=0.1, betas=(0.9, 0.98), eps=1e-3)
    assert uncorrected is (weight.item() == pytest.approx(expected, abs=1e-9)) or all(
        abs(gradient) < 1e-9 for gradient in gradients
    )


def model_of_all_kinds():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(4, 3), nn.LayerNorm(3))
    model.add_module("token_embedding", nn.Embedding(7, 4))
    model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    model.register_parameter("frozen", frozen)
    return model


def settings_of(model, config):
    """Learning rate and decay of each parameter by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in make_optimizer(model, config).param_groups
        for parameter in group["params"]
    }


def test_weight_decay_applies_to_matrices_only():
    result = settings_of(model_of_all_kinds(), Optimizer(lr=0.3, weight_decay=0.2))
    assert result == {
        "0.weight": (0.3, 0.2), "1.weight": (0.3, 0.2), "token_embedding.weight": (0.3, 0.2),
        "0.bias": (0.3, 0.0), "1.bias": (0.3, 0.0), "2.bias": (0.3, 0.0), "2.weight": (0.3, 0.0),
        "scale": (0.3, 0.0),
    }  # fmt: skip


def test_the_last_matching_rule_applies():
    rules = (
        ParameterRule(names="1.*", lr=5.0),
        ParameterRule(names="*bias", lr=2.0, weight_decay=0.0),
        ParameterRule(names="0.*", lr=3.0),
    )
    config = Optimizer(lr=1.0, weight_decay=0.2, decay_vectors=True, rules=rules)
    result = settings_of(model_of_all_kinds(), config)
    assert result["1.weight"] == (5.0, 0.2)
    assert result["1.bias"] == (2.0, 0.0)
    assert result["0.bias"] == (3.0, 0.0)
    assert result["2.weight"] == (1.0, 0.2)


def test_the_rate_of_a_run_keeps_the_ratios_of_the_rules():
    model = model_of_all_kinds()
    optimizer = make_optimizer(model, Optimizer(rules=(ParameterRule(names="0.*", lr=5.0),)))
    set_lr(optimizer, lambda peak: 0.01 * peak)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.05}


@pytest.mark.parametrize("kind", ["adamw", "adam", "muon"])
def test_betas_and_epsilon_reach_the_optimiser(kind):
    config = Optimizer(kind=kind, betas=(0.8, 0.9), eps=1e-5)
    for group in make_optimizer(model_of_all_kinds(), config).param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-5)


def stepped(kind, **config):
    """A 2x2 weight before and after one step, and its gradient."""
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, Optimizer(kind=kind, lr=0.1, weight_decay=0.5, **config))
    layer.weight.grad = torch.tensor([[1.0, -2.0], [0.3, -0.1]])
    optimizer.step()
    return before, layer.weight.data, layer.weight.grad


def test_a_step_of_adamw_equals_the_formula():
    """Loshchilov and Hutter 2019, algorithm 2: the first step has the gradient's sign."""
    before, after, gradient = stepped("adamw", eps=1e-12)
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5) - 0.1 * gradient.sign())


def test_the_weight_decay_of_adam_is_added_to_the_gradient():
    before, after, gradient = stepped("adam", eps=1e-12)
    torch.testing.assert_close(after, before - 0.1 * (gradient + 0.5 * before).sign())


def test_a_step_of_muon_has_nearly_equal_singular_values():
    """They are close to each other for any gradient."""
    layer = nn.Linear(16, 16, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.diag(torch.logspace(-2, 0, 16))
    make_optimizer(layer, Optimizer(kind="muon", lr=0.1, weight_decay=0.0)).step()
    assert torch.linalg.cond(before - layer.weight.data) < 2 < torch.linalg.cond(layer.weight.grad)


def test_muon_leaves_embeddings_and_vectors_to_adamw():
    model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(16, 16))
    model.add_module("words", nn.Embedding(16, 16))
    model.register_parameter("positional_embedding", nn.Parameter(torch.ones(16, 16)))
    model.register_parameter("cls_token", nn.Parameter(torch.ones(1, 1, 16)))
    optimizer = make_optimizer(model, Optimizer(kind="muon"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    by_muon = {n for n, p in model.named_parameters() if "momentum_buffer" in optimizer.state[p]}
    assert by_muon == {"0.weight", "1.weight"}


@pytest.mark.parametrize(
    "shape",
    [(7,), (2, 9), (9, 2), (1, 20, 20), (8, 1, 3, 3), (4, 4), (4, 513), (600, 4), (5, 3, 3, 3)],
)
def test_muon_updates_the_parameters_that_timm_lets_it_update(shape):
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.randn(shape)))
    (group,) = make_optimizer(model, Optimizer(kind="muon")).param_groups
    assert group["is_matrix"] is _is_suitable_for_muon(model.weight)


def test_precision_is_chosen_by_name(monkeypatch):
    monkeypatch.setattr(processor, "computes_bf16", lambda device: True)
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) is torch.bfloat16


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_precision_depends_on_the_processor(native, expected, monkeypatch):
    monkeypatch.setattr(processor, "computes_bf16", lambda device: native)
    assert autocast_dtype("auto", torch.device("cpu")) is expected


def test_emulated_bf16_is_reported(monkeypatch):
    monkeypatch.setattr(processor, "computes_bf16", lambda device: False)
    with pytest.warns(UserWarning, match=r"emulates.*--set precision=auto"):
        assert autocast_dtype("bf16", torch.device("cpu")) is torch.bfloat16
