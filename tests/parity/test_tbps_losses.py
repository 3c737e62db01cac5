"""TBPS-CLIP's losses compared with its released code, and with loops over formulas in fp64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from finegrain.losses import cyclic, itc, sdm, soft_itc
from finegrain.methods.tbps_clip import RITC_EPSILON

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/tbps_clip/released_code.json").read_text())
SHAPES = GOLDEN["shapes"]


@pytest.mark.parametrize("name", ["nitc", "ritc", "citc"])
def test_losses_equal_those_of_the_released_code(name):
    """Both get the same features; the features of the soft labels have another dropout.

    The released targets are in single precision, for any precision of the features.
    """
    draw = np.random.RandomState(SHAPES["seed"])
    features = [
        torch.from_numpy(draw.standard_normal((SHAPES["batch"], SHAPES["embed_dim"])))
        for _ in range(3)
    ]
    pids = torch.from_numpy(draw.randint(0, 5, SHAPES["batch"]))
    images, texts = (one.requires_grad_() for one in features[:2])
    unit_images, unit_texts, again = (F.normalize(one, dim=1) for one in features)
    scale = torch.tensor(1 / SHAPES["temperature"], dtype=torch.float64)
    softness = torch.tensor(SHAPES["softness"], dtype=torch.float64)
    loss = {
        "nitc": lambda: soft_itc(
            unit_images, unit_texts, (unit_images, again), pids, scale, softness=softness
        ),
        "ritc": lambda: sdm(unit_images, unit_texts, pids, scale, epsilon=RITC_EPSILON) / 2,
        "citc": lambda: cyclic(unit_images, unit_texts),
    }[name]()
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["losses"][name], rel=1e-6)
    norms = [images.grad.norm().item(), texts.grad.norm().item()]
    assert norms == pytest.approx(GOLDEN["gradient_norms"][name], rel=1e-6)


def unit(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)


def literal_soft(queries, answers, guess, right, softness, scale):
    """One direction, one query at a time."""
    total = 0.0
    for i in range(len(queries)):
        logits = [scale * (queries[i] @ answer).item() for answer in answers]
        guesses = [scale * (guess[0][i] @ answer).item() for answer in guess[1]]
        norm = math.log(math.fsum(math.exp(logit) for logit in logits))
        guess_norm = math.fsum(math.exp(logit) for logit in guesses)
        for j, logit in enumerate(logits):
            hard = right[i][j] / sum(right[i])
            target = softness * math.exp(guesses[j]) / guess_norm + (1 - softness) * hard
            total -= target * (logit - norm) / len(queries)
    return total


@settings(deadline=None, max_examples=20)
@given(
    pids=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    captions=st.integers(1, 2),
    softness=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_soft_targets_equal_the_formula(pids, captions, softness, seed):
    n, scale = len(pids), 7.0
    images, texts = unit(n, seed), unit(captions * n, seed + 1)
    guessed = unit(n, seed + 2), unit(captions * n, seed + 3)
    told = [pid for pid in pids for _ in range(captions)]
    right = [[float(a == b) for b in told] for a in pids]
    transposed = [list(column) for column in zip(*right, strict=True)]
    expected = (
        literal_soft(images, texts, guessed, right, softness, scale)
        + literal_soft(texts, images, guessed[::-1], transposed, softness, scale)
    ) / 2
    got = soft_itc(
        images,
        texts,
        guessed,
        torch.tensor(pids),
        torch.tensor(scale, dtype=torch.float64),
        softness=torch.tensor(softness, dtype=torch.float64),
    )
    assert got.item() == pytest.approx(expected, rel=1e-9)


def test_without_softness_it_equals_the_contrastive_loss():
    images, texts, pids = unit(5, 0), unit(5, 1), torch.tensor([0, 1, 1, 2, 0])
    scale = torch.tensor(9.0).double()
    got = soft_itc(images, texts, (texts, images), pids, scale, softness=torch.tensor(0.0))
    torch.testing.assert_close(got, itc(images, texts, pids, scale))


def test_soft_labels_from_the_same_features_have_no_gradient():
    """Therefore the captions of the soft labels are encoded with another dropout."""
    images, texts, scale = unit(5, 0).requires_grad_(), unit(5, 1), torch.tensor(9.0).double()
    itself = images.detach(), texts
    soft_itc(images, texts, itself, torch.arange(5), scale, softness=torch.tensor(1.0)).backward()
    assert images.grad.abs().max().item() < 1e-12


def test_equal_similarities_have_a_loss_of_zero():
    images = unit(6, 0)
    assert cyclic(images, images).item() == pytest.approx(0, abs=1e-12)
    assert cyclic(images, images.repeat_interleave(2, dim=0)).item() == pytest.approx(0, abs=1e-12)
    assert cyclic(images, unit(6, 1)).item() > 0.01
