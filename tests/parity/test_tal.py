"""The triplet alignment loss compared with loops over its formula in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import tal

TEMPERATURE, MARGIN = 0.015, 0.1


def unit(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)


def literal_row(query, answers, right, temperature, margin):
    """The loss of one query; ``right`` says whether each answer shows the same person."""
    cosines = [(query * answer).sum() for answer in answers]
    rights = [c for c, is_right in zip(cosines, right, strict=True) if is_right]
    powers = [math.exp(cosine.item() / temperature) for cosine in rights]
    wrongs = [c for c, is_right in zip(cosines, right, strict=True) if not is_right]
    if not wrongs:
        return 0 * cosines[0]
    total = torch.zeros((), dtype=torch.float64)
    for power, cosine in zip(powers, rights, strict=True):
        total = total - power / sum(powers) * cosine
    over_wrong = torch.zeros((), dtype=torch.float64)
    for cosine in wrongs:
        over_wrong = over_wrong + (cosine / temperature).exp()
    return (margin + total + temperature * over_wrong.log()).clamp(min=0)


def literal(images, texts, pids, temperature, margin):
    captions = len(texts) // len(images)
    told = [pid for pid in pids for _ in range(captions)]
    rows = []
    for i, pid in enumerate(pids):
        row = literal_row(images[i], texts, [p == pid for p in told], temperature, margin)
        for text in texts[i * captions : (i + 1) * captions]:
            right = [p == pid for p in pids]
            row = row + literal_row(text, images, right, temperature, margin)
        rows.append(row)
    return torch.stack(rows)


@settings(deadline=None, max_examples=30)
@given(
    pids=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    captions=st.integers(1, 2),
    seed=st.integers(0, 1000),
    temperature=st.floats(0.01, 0.1),
    margin=st.floats(0, 0.5),
)
def test_values_and_gradients_equal_the_formula(pids, captions, seed, temperature, margin):
    weights = torch.linspace(0, 1, len(pids), dtype=torch.float64)
    gradients = []
    for loss in (
        lambda i, t: tal(i, t, torch.tensor(pids), temperature=temperature, margin=margin),
        lambda i, t: literal(i, t, pids, temperature, margin),
    ):
        leaves = unit(len(pids), seed), unit(captions * len(pids), seed + 1)
        for leaf in leaves:
            leaf.requires_grad_()
        values = loss(*leaves)
        gradients.append((values, *torch.autograd.grad((weights * values).sum(), leaves)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_a_batch_of_one_person_has_a_loss_of_zero_and_no_gradient():
    images, texts = unit(3, 0).requires_grad_(), unit(3, 1)
    loss = tal(images, texts, torch.zeros(3, dtype=torch.long), temperature=0.015, margin=0.1)
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert images.grad.abs().max() == 0


def test_it_approaches_the_hardest_negative_at_low_temperature():
    images, texts, pids = unit(6, 2), unit(6, 3), torch.arange(6)
    cosines = images @ texts.T
    wrong = cosines - 10 * torch.eye(6, dtype=torch.float64)
    triplets = sum((s.max(dim=1).values - cosines.diag() + 0.1).relu() for s in (wrong, wrong.T))
    got = tal(images, texts, pids, temperature=1e-4, margin=0.1)
    torch.testing.assert_close(got, triplets, atol=1e-3, rtol=0)
    assert (tal(images, texts, pids, temperature=0.05, margin=0.1) >= triplets).all()


def test_half_precision_is_converted_to_fp32():
    images, texts = unit(6, 2).to(torch.bfloat16), unit(6, 3).to(torch.bfloat16)
    pids = torch.tensor([0, 1, 1, 2, 3, 4])
    with torch.autocast("cpu", torch.bfloat16):
        got = tal(images, texts, pids, temperature=TEMPERATURE, margin=MARGIN)
    expected = tal(images.float(), texts.float(), pids, temperature=TEMPERATURE, margin=MARGIN)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.parametrize("temperature", [1e-3, 1e-4])
def test_no_temperature_causes_an_overflow(temperature):
    images = unit(4, 0).float()
    result = tal(images, images, torch.arange(4), temperature=temperature, margin=0.1)
    assert result.isfinite().all()
