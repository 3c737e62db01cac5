"""SDM, CMPM and the identity loss compared with loops over their formulas in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import cmpm, identity, itc, sdm

batches = st.lists(st.integers(0, 4), min_size=1, max_size=8)
seeds = st.integers(0, 1000)


def features(n, d, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)


def unit(n, d, seed, dtype=torch.float64):
    return F.normalize(features(n, d, seed), dim=1).to(dtype)


def literal_divergence(score, right, share):
    """``sum_j p_j log(p_j / (q_j + 1e-8))`` of a row, given its scores as a list of scalars."""
    log_sum = torch.logsumexp(torch.stack(score), dim=0)
    total = torch.zeros((), dtype=score[0].dtype)
    for j, logit in enumerate(score):
        p = (logit - log_sum).exp()
        q = share if j in right else 0.0
        total = total + p * ((logit - log_sum) - math.log(q + 1e-8))
    return total


def directions(images, texts, pids):
    """Queries and their identities, and answers and theirs, in both directions."""
    text_pids = [pid for pid in pids for _ in range(len(texts) // len(images))]
    yield images, pids, texts, text_pids
    yield texts, text_pids, images, pids


def literal_sdm(images, texts, pids, scale):
    total = 0.0
    for queries, own, answers, others in directions(images, texts, pids):
        for i in range(len(own)):
            right = [j for j in range(len(others)) if others[j] == own[i]]
            score = [scale * (queries[i] * answers[j]).sum() for j in range(len(others))]
            total = total + literal_divergence(score, right, 1 / len(right)) / len(own)
    return total


def literal_cmpm(images, texts, pids):
    total = 0.0
    for queries, own, answers, others in directions(images, texts, pids):
        for i in range(len(own)):
            right = [j for j in range(len(others)) if others[j] == own[i]]
            score = [(queries[i] * a).sum() / a.norm() for a in answers]
            total = total + literal_divergence(score, right, 1 / math.sqrt(len(right))) / len(own)
    return total


def literal_itc(images, texts, pids, scale):
    total = 0.0
    for queries, own, answers, others in directions(images, texts, pids):
        for i in range(len(own)):
            right = [j for j in range(len(others)) if others[j] == own[i]]
            score = torch.stack([scale * (queries[i] * a).sum() for a in answers])
            total = total - score.log_softmax(0)[right].mean() / (2 * len(own))
    return total


def assert_same(ours, literal, *inputs):
    """Check for equal values and equal gradients of every input."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    got, expected = ours(*leaves), literal(*leaves)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


several = st.integers(1, 3)
"""Number of captions per picture."""


@settings(deadline=None, max_examples=25)
@given(pids=batches, captions=several, seed=seeds, scale=st.floats(0.5, 50))
def test_sdm_equals_the_formula(pids, captions, seed, scale):
    tensor, scale = torch.tensor(pids), torch.tensor(scale).double()
    assert_same(
        lambda images, texts: sdm(images, texts, tensor, scale),
        lambda images, texts: literal_sdm(images, texts, pids, scale),
        unit(len(pids), 5, seed),
        unit(len(pids) * captions, 5, seed + 1),
    )


@settings(deadline=None, max_examples=15)
@given(pids=batches, captions=several, seed=seeds)
def test_itc_of_several_captions_equals_the_formula(pids, captions, seed):
    tensor, scale = torch.tensor(pids), torch.tensor(14.0).double()
    assert_same(
        lambda images, texts: itc(images, texts, tensor, scale),
        lambda images, texts: literal_itc(images, texts, pids, scale),
        unit(len(pids), 5, seed),
        unit(len(pids) * captions, 5, seed + 1),
    )


@settings(deadline=None, max_examples=25)
@given(pids=batches, captions=several, seed=seeds)
def test_cmpm_equals_the_formula(pids, captions, seed):
    tensor = torch.tensor(pids)
    assert_same(
        lambda images, texts: cmpm(images, texts, tensor),
        lambda images, texts: literal_cmpm(images, texts, pids),
        features(len(pids), 5, seed),
        features(len(pids) * captions, 5, seed + 1),
    )


def test_sdm_of_one_identity_is_the_divergence_from_uniform():
    """Every answer matches, so the loss is twice the divergence of ``p`` from uniform."""
    constant = torch.ones(6, 1)
    pids = torch.zeros(6, dtype=torch.long)
    assert sdm(constant, constant, pids, torch.tensor(50.0)).item() == pytest.approx(0, abs=1e-5)


def test_probability_of_a_wrong_answer_adds_the_logarithm_of_epsilon():
    """``p`` is uniform over two rows of two people, so half of it is wrong, in both directions."""
    same = torch.ones(2, 1)
    got = sdm(same, same, torch.tensor([0, 1]), torch.tensor(50.0)).item()
    expected = 2 * (0.5 * math.log(0.5) + 0.5 * (math.log(0.5) - math.log(1e-8)))
    assert got == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=15)
@given(pids=batches, seed=seeds)
def test_the_identity_loss_equals_the_formula(pids, seed):
    labels = torch.tensor(pids)

    def literal(images, texts):
        rows = range(len(pids))
        total = sum(torch.logsumexp(x[i], 0) - x[i, pids[i]] for x in (images, texts) for i in rows)
        return (total / (2 * len(pids))).float()

    images, texts = features(len(pids), 5, seed), features(len(pids), 5, seed + 1)
    got = identity(images.float(), texts.float(), labels)
    torch.testing.assert_close(got, literal(images, texts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", [sdm, itc])
def test_half_precision_is_converted_to_fp32(loss):
    images, texts = unit(8, 6, 0, torch.bfloat16), unit(8, 6, 1, torch.bfloat16)
    pids, scale = torch.tensor([0, 1, 1, 2, 0, 3, 1, 4]), torch.tensor(50.0)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(images, texts, pids, scale)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(images.float(), texts.float(), pids, scale))


def test_without_identities_every_row_is_its_own_identity():
    images, texts = unit(4, 6, 0, torch.float32), unit(4, 6, 1, torch.float32)
    scale = torch.tensor(50.0)
    assert torch.equal(itc(images, texts, None, scale), itc(images, texts, torch.arange(4), scale))
