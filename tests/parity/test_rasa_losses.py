"""RaSa's losses and their gradients compared with loops over their formulas in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import distilled_words, momentum_contrast, pair_matching, replaced_words
from finegrain.losses.momentum_contrast import Pair

SMALL = settings(max_examples=25, deadline=None)


def drawn(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def log_softmax(row):
    top = max(value.item() for value in row)
    total = sum(torch.exp(value - top) for value in row)
    return [value - top - torch.log(total) for value in row]


def assert_equal_with_gradients(ours, literal, leaves):
    torch.testing.assert_close(ours, literal, atol=1e-10, rtol=1e-10)
    gradients, expected = (torch.autograd.grad(loss, leaves) for loss in (ours, literal))
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def literal_contrast(queries, guesses, keys, pids, key_pids, scale, softness):
    """Equations 2 to 4 of the paper, term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for query, guess in zip(queries, guesses, strict=True):
        for key in keys:
            for i in range(len(query)):
                of_query = log_softmax([scale * (query[i] * row).sum() for row in key])
                of_guess = log_softmax([scale.detach() * (guess[i] * row).sum() for row in key])
                count = sum(int(pids[i] == other) for other in key_pids)
                for j in range(len(key)):
                    right = float(pids[i] == key_pids[j]) / count
                    target = softness * of_guess[j].exp() + (1 - softness) * right
                    total = total - target * of_query[j] / len(query)
    return total / 4


@SMALL
@given(
    n=st.integers(1, 4),
    more=st.integers(0, 4),
    softness=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 99),
)
def test_momentum_contrast_equals_the_formula(n, more, softness, seed):
    def pair(count, at):
        return Pair(*(F.normalize(drawn(count, 5, seed=seed + at + k), dim=1) for k in range(2)))

    queries = Pair(*(one.requires_grad_() for one in pair(n, 0)))
    guesses, past = pair(n, 10), pair(more, 20)
    keys = Pair(*(torch.cat([one, other]) for one, other in zip(guesses, past, strict=True)))
    draw = torch.Generator().manual_seed(seed)
    key_pids = torch.randint(0, 3, (n + more,), generator=draw)
    key_pids[n:] = torch.where(key_pids[n:] == 2, -100, key_pids[n:])  # rows that are still empty
    pids = key_pids[:n]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    share = torch.tensor(softness, dtype=torch.float64)
    same = (pids[:, None] == key_pids).double()
    ours = momentum_contrast(queries, guesses, keys, same, scale, softness=share)
    literal = literal_contrast(queries, guesses, keys, pids, key_pids, scale, softness)
    assert_equal_with_gradients(ours, literal, [*queries, scale])


@SMALL
@given(right=st.integers(1, 4), wrong=st.integers(0, 6), seed=st.integers(0, 99))
def test_pair_matching_equals_the_formula(right, wrong, seed):
    matched = drawn(right, 2, seed=seed).requires_grad_()
    unmatched = drawn(wrong, 2, seed=seed + 1).requires_grad_()
    literal = sum(-log_softmax(row)[1] for row in matched)
    literal = literal + sum(-log_softmax(row)[0] for row in unmatched)
    ours = pair_matching(matched, unmatched)
    assert_equal_with_gradients(ours, literal / (right + wrong), [matched])


def literal_words(logits, guesses, targets, hidden, softness, axis):
    told, guessed, count = 0.0, 0.0, 0
    n, length, vocabulary = logits.shape
    for i in range(n):
        for t in range(length):
            if not hidden[i, t]:
                continue
            count += 1
            own = log_softmax(logits[i, t])
            told = told - own[targets[i, t]]
            for v in range(vocabulary):
                over_captions = log_softmax(logits[i, :, v])[t]
                log_p = own[v] if axis == "vocabulary" else over_captions
                guessed = guessed - guesses[i, t, v] * log_p
    return ((1 - softness) * told + softness * guessed) / max(1, count)


@SMALL
@given(
    axis=st.sampled_from(["vocabulary", "sequence"]),
    n=st.integers(1, 2),
    length=st.integers(1, 4),
    softness=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_distilled_words_equal_the_formula(axis, n, length, softness, seed):
    logits = drawn(n, length, 5, seed=seed).requires_grad_()
    guesses = drawn(n, length, 5, seed=seed + 1).softmax(dim=-1)
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 5, (n, length), generator=draw)
    hidden = torch.rand(n, length, generator=draw) < 0.5
    hidden[0, 0] = True
    share = torch.tensor(softness, dtype=torch.float64)
    ours = distilled_words(logits, guesses, targets, hidden, softness=share, axis=axis)
    literal = literal_words(logits, guesses, targets, hidden, softness, axis)
    assert_equal_with_gradients(ours, literal, [logits])


@SMALL
@given(n=st.integers(1, 3), length=st.integers(1, 5), seed=st.integers(0, 99))
def test_replaced_words_equal_the_formula(n, length, seed):
    logits = drawn(n, length, 2, seed=seed).requires_grad_()
    draw = torch.Generator().manual_seed(seed)
    is_replaced, known = (torch.rand(n, length, generator=draw) < 0.5 for _ in range(2))
    known[0, 0] = True
    terms = [
        -log_softmax(logits[i, t])[int(is_replaced[i, t])]
        for i in range(n)
        for t in range(length)
        if known[i, t]
    ]
    ours = replaced_words(logits, is_replaced, known)
    assert_equal_with_gradients(ours, sum(terms) / len(terms), [logits])


def test_without_words_the_loss_is_zero_and_has_a_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    none = torch.zeros(2, 3, dtype=torch.bool)
    guesses, share = logits.detach().softmax(dim=-1), torch.tensor(0.4)
    words = distilled_words(logits, guesses, none.long(), none, softness=share)
    loss = words + replaced_words(logits[..., :2], none, none)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_a_single_pair_of_one_person_is_at_the_minimum():
    """There is one key, and it matches, so every direction has probability one."""
    one = Pair(*(F.normalize(torch.ones(1, 4), dim=1) for _ in range(2)))
    loss = momentum_contrast(
        one, one, one, torch.ones(1, 1), torch.tensor(10.0), softness=torch.tensor(0.4)
    )
    assert math.isclose(loss.item(), 0, abs_tol=1e-7)


def test_the_temperature_has_a_gradient_from_queries_only():
    """The guesses of the momentum model do not contribute to it."""
    queries = Pair(*(F.normalize(drawn(3, 4, seed=k), dim=1) for k in range(2)))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    loss = momentum_contrast(
        queries, queries, queries, torch.eye(3).double(), scale, softness=torch.tensor(1.0)
    )
    (gradient,) = torch.autograd.grad(loss, scale)
    assert gradient.abs().item() == pytest.approx(0, abs=1e-12)
