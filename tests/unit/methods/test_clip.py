from __future__ import annotations

import math

import pytest
import torch

from finegrain.losses import itc
from finegrain.methods import Batch


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        pixels=torch.randint(0, 256, (4, 3, 128, 64), generator=generator).to(torch.uint8),
        ids=torch.randint(1, 400, (4, 9), generator=generator, dtype=torch.int32),
        eot=torch.tensor([3, 8, 5, 8], dtype=torch.int32),
        pids=torch.tensor([0, 1, 1, 2]),
        items=torch.arange(4),
        where=("a", "b", "c", "d"),
    )


@torch.no_grad()
def test_embeddings_have_unit_length_in_fp32_also_under_autocast(tiny_method, batch):
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = (
            tiny_method.encode_images(batch.pixels),
            tiny_method.encode_texts(batch.ids, batch.eot),
        )
    for result in embeddings:
        assert (result.shape, result.dtype) == ((4, 32), torch.float32)
        torch.testing.assert_close(result.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)


@torch.no_grad()
def test_losses_are_named_and_unweighted(tiny_method, batch):
    losses = tiny_method(batch)
    assert losses.keys() == {"itc"}
    images = tiny_method.encode_images(batch.pixels)
    texts = tiny_method.encode_texts(batch.ids, batch.eot)
    expected = itc(images, texts, batch.pids, torch.tensor(1 / 0.07))
    torch.testing.assert_close(losses["itc"], expected)
    torch.testing.assert_close(tiny_method(batch)["itc"], expected)


def test_every_parameter_gets_a_gradient(tiny_recipe, batch):
    torch.manual_seed(0)
    method = tiny_recipe.method.build()
    torch.autograd.backward(method(batch)["itc"])
    without = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    # The bias of keys does not change the softmax; q and v in the same tensor have gradients.
    assert without == []


def test_temperature_starts_as_stated_and_the_scale_is_bounded(tiny_recipe):
    method = tiny_recipe.method.build()
    assert method.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    method.after_step()
    assert method.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        method.logit_scale.fill_(math.log(1000))
    method.after_step()
    assert method.logit_scale.exp().item() == pytest.approx(100)
