"""The cross-modal identity loss compared with loops over its formula in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.losses.cid import cid, cid_pairs

WIDTH, CLASSES = 5, 6
WRONG = CLASSES - 1


def drawn(n, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def cosine(a, b):
    return (a @ b / a.norm() / b.norm()).item()


def literal_pairs(images, texts, pids):
    """Pairs of rows with their class, in any order."""
    captions, pairs = len(texts) // len(images), []
    told = [pid for pid in pids for _ in range(captions)]
    for t, pid in enumerate(told):
        i = t // captions
        pairs.append((i, t, pid))
        others = [j for j, other in enumerate(pids) if other != pid]
        if others:
            pairs.append((max(others, key=lambda j: cosine(images[j], texts[t])), t, WRONG))
        others = [u for u, other in enumerate(told) if other != pid]
        if others:
            pairs.append((i, max(others, key=lambda u: cosine(images[i], texts[u])), WRONG))
    return pairs


def literal(images, texts, pids, classifier):
    total, pairs = torch.zeros((), dtype=torch.float64), literal_pairs(images, texts, pids)
    for i, t, label in pairs:
        for pair in ([images[i], texts[t]], [texts[t], images[i]]):
            logits = torch.cat(pair) @ classifier
            total = total + (logits.exp().sum().log() - logits[label]) / 2
    return total / len(pairs)


def ours(images, texts, pids, classifier):
    pairs = cid_pairs(images, texts, torch.tensor(pids), wrong=torch.tensor(WRONG))
    first, swapped = (pair @ classifier for pair in pairs.both_orders())
    return cid(first, swapped, pairs.labels)


@settings(deadline=None, max_examples=30)
@given(
    pids=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    captions=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_equal_the_formula(pids, captions, seed):
    results = []
    for loss in (ours, literal):
        leaves = (
            drawn(len(pids), WIDTH, seed),
            drawn(captions * len(pids), WIDTH, seed + 1),
            drawn(2 * WIDTH, CLASSES, seed + 2),
        )
        for leaf in leaves:
            leaf.requires_grad_()
        value = loss(leaves[0], leaves[1], pids, leaves[2])
        results.append((value.double(), *torch.autograd.grad(value, leaves)))
    for result, expected in zip(*results, strict=True):
        # The logits of the cross-entropy are fp32.
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_the_pairs_are_those_of_the_formula():
    images, texts, pids = drawn(5, WIDTH, 0), drawn(10, WIDTH, 1), [0, 1, 1, 2, 0]
    pairs = cid_pairs(images, texts, torch.tensor(pids), wrong=torch.tensor(WRONG))
    rows = [torch.cat([*features, label[None]]) for *features, label in zip(*pairs, strict=True)]
    expected = [
        torch.cat([images[i], texts[t], torch.tensor([float(label)]).double()])
        for i, t, label in literal_pairs(images, texts, pids)
    ]
    assert sorted(row.tolist() for row in rows) == sorted(row.tolist() for row in expected)


def test_a_batch_of_one_person_has_matching_pairs_only():
    x = drawn(3, WIDTH, 0)
    pairs = cid_pairs(x, x, torch.ones(3, dtype=torch.long), wrong=torch.tensor(WRONG))
    assert pairs.labels.tolist() == [1, 1, 1]
    assert torch.equal(pairs.images, x)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    logits = torch.zeros(4, CLASSES)
    labels = torch.tensor([0, 1, 2, WRONG])
    assert cid(logits, logits, labels).item() == pytest.approx(math.log(CLASSES))
