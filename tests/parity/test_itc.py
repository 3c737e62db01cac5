"""The contrastive loss compared with loops over its formula, and over two processes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import itc

SCALE = 14.0


def unit(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator), dim=1)


def literal(images, texts, pids, scale):
    """Symmetric cross-entropy with targets that are uniform over the captions of the same pid."""
    n = len(pids)
    total = 0.0
    for queries, answers in ((images, texts), (texts, images)):
        for i in range(n):
            logits = [scale * (queries[i] * answers[j]).sum() for j in range(n)]
            log_sum = torch.logsumexp(torch.stack(logits), dim=0)
            right = [j for j in range(n) if pids[j] == pids[i]]
            for j in right:
                total = total + (log_sum - logits[j]) / len(right)
    return total / (2 * n)


@settings(deadline=None, max_examples=25)
@given(
    pids=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
    scale=st.floats(0.1, 100),
)
def test_the_loss_equals_a_double_loop(pids, seed, scale):
    images, texts = unit(len(pids), 6, seed), unit(len(pids), 6, seed + 1)
    got = itc(images, texts, torch.tensor(pids), torch.tensor(scale))
    expected = literal(images.double(), texts.double(), pids, scale)
    assert got.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


def test_with_distinct_pids_the_loss_equals_info_nce():
    """Radford et al. 2021, figure 3."""
    images, texts = unit(8, 6, 0), unit(8, 6, 1)
    logits = SCALE * images @ texts.T
    labels = torch.arange(8)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    got = itc(images, texts, torch.tensor([5, 3, 9, 1, 0, 7, 2, 8]), torch.tensor(SCALE))
    torch.testing.assert_close(got, expected)


PIDS = torch.tensor([0, 1, 1, 2, 0, 3, 1, 4])


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, leaves)


def leaves(dtype=torch.float32):
    made = (unit(8, 6, 2).to(dtype), unit(8, 6, 3).to(dtype), torch.tensor(SCALE, dtype=dtype))
    return tuple(leaf.requires_grad_() for leaf in made)


def test_gradients_equal_those_of_the_double_loop():
    images, texts, scale = leaves()
    got = gradients(itc(images, texts, PIDS, scale), images, texts, scale)
    images, texts, scale = leaves(torch.float64)
    expected = gradients(literal(images, texts, PIDS.tolist(), scale), images, texts, scale)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pids", [range(16), [0] * 16, [i // 4 for i in range(16)]])
def test_the_loss_has_its_bounds(pids):
    """It is at least the entropy of the targets, which is log n for n matching captions."""
    pids = torch.tensor(list(pids))
    same = int((pids == 0).sum())
    identity = F.one_hot(pids, 16).float()
    low = math.log(same)
    assert itc(identity, identity, pids, torch.tensor(100.0)).item() == pytest.approx(low, abs=1e-4)
    constant = torch.ones(16, 1)
    uniform = itc(constant, constant, pids, torch.tensor(100.0)).item()
    assert uniform == pytest.approx(math.log(16), abs=1e-4)
    for seed in range(5):
        got = itc(unit(16, 4, seed), unit(16, 4, seed + 50), pids, torch.tensor(3.0)).item()
        assert low - 1e-4 <= got <= math.log(16) + 2 * 3.0


def test_logits_are_in_full_precision_under_autocast():
    images, texts = unit(16, 32, 0), unit(16, 32, 1)
    pids, scale = torch.arange(16), torch.tensor(100.0)
    expected = itc(images, texts, pids, scale)
    with torch.autocast("cpu", torch.bfloat16):
        got = itc(images, texts, pids, scale)
    assert torch.equal(got, expected)


def test_half_precision_embeddings_are_converted_to_fp32():
    images, texts = unit(8, 6, 0).bfloat16(), unit(8, 6, 1).bfloat16()
    got = itc(images, texts, PIDS, torch.tensor(SCALE))
    expected = itc(images.float(), texts.float(), PIDS, torch.tensor(SCALE))
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def one_of_two(rank, folder):
    """A process with four of the eight rows, and its own weights as under DDP."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    images, texts, scale = leaves()
    rows = slice(4 * rank, 4 * rank + 4)
    loss = itc(images[rows], texts[rows], PIDS[rows], scale)
    grads = gradients(loss, images, texts, scale)
    for tensor in (loss := loss.detach(), *grads):  # DDP takes the mean
        dist.all_reduce(tensor)
        tensor /= 2
    torch.save([loss, *grads], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    mp.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    images, texts, scale = leaves()
    loss = itc(images, texts, PIDS, scale)
    expected = [loss.detach(), *gradients(loss, images, texts, scale)]
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
