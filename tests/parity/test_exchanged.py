"""The loss of exchanged words compared with its formula, one caption after another in fp64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import exchanged


def unit(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 4, generator=generator), dim=1)


def literal(images, texts, negatives, exists, temperature):
    captions = len(texts) // len(images)
    losses = []
    for row in range(len(texts)):
        if exists[row]:
            image = images[row // captions].double()
            right = (texts[row].double() @ image / temperature).exp()
            wrong = (negatives[row].double() @ image / temperature).exp()
            losses.append(-(right / (right + wrong)).log())
    nothing = 0 * sum(t.double().sum() for t in (images, texts, negatives))
    return torch.stack(losses).mean() if losses else nothing


@settings(deadline=None, max_examples=40)
@given(
    exists=st.lists(st.booleans(), min_size=1, max_size=4),
    captions=st.integers(1, 2),
    seed=st.integers(0, 1000),
    temperature=st.floats(0.02, 1.0),
)
def test_values_and_gradients_equal_the_formula(exists, captions, seed, temperature):
    count = len(exists)
    told = torch.tensor(exists).repeat_interleave(captions)
    result = []
    for loss in (
        lambda i, t, r: exchanged(i, t, r, told, temperature=temperature),
        lambda i, t, r: literal(i, t, r, told, temperature),
    ):
        leaves = unit(count, seed), unit(captions * count, seed + 1), unit(len(told), seed + 2)
        for leaf in leaves:
            leaf.requires_grad_()
        value = loss(*leaves)
        result.append((value.double(), *torch.autograd.grad(value, leaves)))
    for ours, theirs in zip(*result, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_captions_that_did_not_change_have_no_gradient():
    texts = unit(2, 1).requires_grad_()
    loss = exchanged(unit(2, 0), texts, texts, torch.tensor([False, False]), temperature=0.02)
    loss.backward()
    assert loss.item() == 0
    assert not texts.grad.any()
