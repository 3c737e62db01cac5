"""FashionBERT's losses and weights compared with loops over their formulas in fp64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.losses import adaptive_weights, gradient_norms, masked_patches

strengths = st.lists(st.floats(0, 40), min_size=3, max_size=3)
several = st.lists(st.floats(0, 40), min_size=2, max_size=6)


def tensor(values, *, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def normed(values):
    """The squared softmax, number by number."""
    powers = [math.exp(value - max(values)) for value in values]
    return [(power / sum(powers)) ** 2 for power in powers]


@given(strengths)
def test_weights_of_three_losses_equal_the_released_products(values):
    a, b, c = (3 - n for n in normed(values))
    total = a * b + b * c + c * a
    expected = [b * c / total, c * a / total, a * b / total]
    assert adaptive_weights(tensor(values)).tolist() == pytest.approx(expected, rel=1e-12)


@given(strengths)
def test_weights_of_three_losses_lie_between_two_and_three_sevenths(values):
    weights = adaptive_weights(tensor(values))
    assert weights.sum().item() == pytest.approx(1)
    assert weights.min().item() >= 2 / 7 - 1e-12
    assert weights.max().item() <= 3 / 7 + 1e-12
    strongest = values.index(max(values))
    assert weights[strongest].item() == pytest.approx(weights.max().item())


def test_the_bounds_are_reached():
    assert adaptive_weights(tensor([90, 0, 0])).tolist() == pytest.approx([3 / 7, 2 / 7, 2 / 7])
    assert adaptive_weights(tensor([5, 5, 5])).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


@given(several)
def test_weights_solve_the_stated_problem(values):
    """Stationarity under the constraint, as one linear system of weights and multiplier."""
    count = len(values)
    system = np.ones((count + 1, count + 1))
    # The derivative of sum_{i<j} (w_i - w_j)^2 / 2 by w_i is K w_i - sum_j w_j.
    system[:count, :count] = count * np.eye(count) - 1 - np.diag(normed(values))
    system[count, count] = 0
    expected = np.linalg.solve(system, [0] * count + [1])[:count]
    assert adaptive_weights(tensor(values)).tolist() == pytest.approx(list(expected), abs=1e-9)


def test_one_loss_has_all_the_weight():
    assert adaptive_weights(tensor([3.0])).tolist() == [1.0]


@given(strengths)
def test_the_gradient_flows_through_the_weights(values):
    """``dL/dl`` of ``L = sum_i w_i(l) l_i`` by central differences of the literal formula."""

    def loss(of):
        inverse = [1 / (3 - n) for n in normed(of)]
        return sum(w * value for w, value in zip(inverse, of, strict=True)) / sum(inverse)

    leaf = tensor(values, grad=True)
    total = (adaptive_weights(leaf) * leaf).sum()
    (got,) = torch.autograd.grad(total, leaf)
    assert total.item() == pytest.approx(loss(values))
    for i, slope in enumerate(got.tolist()):
        up, down = list(values), list(values)
        up[i], down[i] = up[i] + 1e-5, down[i] - 1e-5
        assert slope == pytest.approx((loss(up) - loss(down)) / 2e-5, abs=1e-6)


def test_gradient_norms_equal_the_formula():
    weight, bias = tensor([[1.0, 2.0], [3.0, 4.0]], grad=True), tensor([0.5, -1.0], grad=True)
    x = tensor([2.0, -1.0])
    losses = [(weight @ x + bias).square().sum(), 3 * bias.sum() + weight.sum()]
    y = weight @ x + bias
    first = math.sqrt(sum((2 * v * u) ** 2 for v in y.tolist() for u in (*x.tolist(), 1)))
    norms = gradient_norms(losses, iter((weight, bias)))
    assert norms.tolist() == pytest.approx([first, math.sqrt(2 * 9 + 4)])
    assert not norms.requires_grad
    torch.stack(losses).sum().backward()
    assert weight.grad is not None


def literal_masked_patches(predictions, features):
    total = 0.0
    for guess, hidden in zip(predictions, features, strict=True):
        p = [math.exp(value) for value in hidden.tolist()]
        for value, logit in zip(p, guess, strict=True):
            share = value / sum(p)
            total = total + share * (math.log(share) - (logit - torch.logsumexp(guess, 0)))
    return total / len(predictions)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0, 1000))
def test_masked_patches_equal_the_formula(rows, width, seed):
    draw = torch.Generator().manual_seed(seed)
    predictions = torch.randn(rows, width, generator=draw, dtype=torch.float64)
    features = torch.randn(rows, width, generator=draw, dtype=torch.float64)
    leaves = [predictions.clone().requires_grad_() for _ in range(2)]
    got = masked_patches(leaves[0], features)
    expected = literal_masked_patches(leaves[1], features)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    got.backward()
    expected.backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-9, atol=1e-12)


def test_masked_patches_have_no_gradient():
    features = torch.randn(2, 3, requires_grad=True)
    masked_patches(torch.randn(2, 3, requires_grad=True), features).backward()
    assert features.grad is None


def test_a_correct_prediction_has_a_loss_of_zero():
    features = torch.randn(4, 7)
    assert masked_patches(features + 3, features).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_is_converted_to_fp32():
    predictions, features = torch.randn(4, 7).bfloat16(), torch.randn(4, 7).bfloat16()
    got = masked_patches(predictions, features)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, masked_patches(predictions.float(), features.float()))
