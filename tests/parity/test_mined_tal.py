"""The triplet alignment loss over a queue compared with loops over its definition in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import mined_tal, tal
from finegrain.losses.mined_tal import Keys

FIXED = {"temperature": 0.05, "margin": 0.1}


def unit(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)


def keys(ids, seed):
    return Keys(unit(len(ids), seed), torch.tensor(ids, dtype=torch.long))


def literal_row(query, pid, batch, queue, *, temperature, margin, hardest):
    rights, wrongs = [], []
    for (features, ids), is_queue in ((batch, False), (queue, True)):
        for feature, other in zip(features, ids.tolist(), strict=True):
            cosine = (query * feature).sum()
            if other == pid and not is_queue:
                rights.append(cosine)
            if other >= 0 and other != pid:
                wrongs.append(cosine)
    if not wrongs:
        return 0 * query.sum()
    powers = [math.exp(cosine.item() / temperature) for cosine in rights]
    pulled = sum(p / sum(powers) * c for p, c in zip(powers, rights, strict=True))
    mined = sorted(wrongs, key=lambda cosine: -cosine.item())[:hardest]
    pushed = temperature * torch.stack([c / temperature for c in mined]).exp().sum().log()
    return (margin - pulled + pushed).clamp(min=0)


@settings(deadline=None, max_examples=40)
@given(
    pids=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    queued=st.lists(st.sampled_from([-100, 0, 1, 2, 3, 7]), max_size=9),
    seed=st.integers(0, 1000),
    hardest=st.integers(1, 20),
    temperature=st.floats(0.01, 0.2),
    margin=st.floats(0, 0.5),
)
def test_values_and_gradients_equal_the_formula(pids, queued, seed, hardest, temperature, margin):
    batch, queue = keys(pids, seed), keys(queued, seed + 1)
    given_to_both = {"temperature": temperature, "margin": margin, "hardest": hardest}
    weights = torch.linspace(0.5, 1, len(pids), dtype=torch.float64)

    def literal(queries):
        rows = [
            literal_row(query, pid, batch, queue, **given_to_both)
            for query, pid in zip(queries, pids, strict=True)
        ]
        return torch.stack(rows)

    result = []
    for loss in (lambda q: mined_tal(q, batch.ids, batch, queue, **given_to_both), literal):
        queries = unit(len(pids), seed + 2).requires_grad_()
        values = loss(queries)
        result.append((values, *torch.autograd.grad((weights * values).sum(), queries)))
    for ours, theirs in zip(*result, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    pids=st.lists(st.integers(0, 3), min_size=2, max_size=5),
    queued=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_rows_of_the_same_person_in_the_queue_are_ignored(pids, queued, seed):
    """They are neither negatives nor positives."""
    batch, queue = keys(pids, seed), keys(queued, seed + 1)
    queries = unit(len(pids), seed + 2)
    for row, pid in enumerate(pids):
        is_own = queue.ids == pid
        one = queries[row : row + 1], torch.tensor([pid]), batch
        plain = mined_tal(*one, queue, **FIXED, hardest=3)
        moved = torch.where(is_own[:, None], queries[row], queue.features)
        without = Keys(queue.features[~is_own], queue.ids[~is_own])
        torch.testing.assert_close(
            mined_tal(*one, Keys(moved, queue.ids), **FIXED, hardest=3), plain
        )
        torch.testing.assert_close(mined_tal(*one, without, **FIXED, hardest=3), plain)


def test_without_a_queue_and_without_mining_it_equals_tal():
    images, texts = unit(5, 0), unit(5, 1)
    pids = torch.tensor([0, 1, 1, 2, 3])
    empty = keys([-100] * 4, 2)
    both = (
        mined_tal(images, pids, Keys(texts, pids), empty, **FIXED, hardest=100)
        + mined_tal(texts, pids, Keys(images, pids), empty, **FIXED, hardest=100)
    )  # fmt: skip
    torch.testing.assert_close(both, tal(images, texts, pids, **FIXED))


def test_a_harder_negative_in_the_queue_raises_the_loss():
    query, pids = unit(1, 0), torch.tensor([0])
    batch = Keys(query, pids)
    near = F.normalize(query + 0.1 * unit(1, 1), dim=1)
    losses = [
        mined_tal(query, pids, batch, Keys(wrong, torch.tensor([4])), **FIXED, hardest=1).item()
        for wrong in (-query, near)
    ]
    assert losses[0] == 0
    assert losses[1] == pytest.approx(0.1 - 1 + float((query * near).sum()))


def test_one_person_has_a_loss_of_zero_and_no_gradient():
    queries = unit(3, 0).requires_grad_()
    pids = torch.zeros(3, dtype=torch.long)
    loss = mined_tal(queries, pids, Keys(unit(3, 1), pids), keys([0, -100], 2), **FIXED, hardest=2)
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert not queries.grad.any()
