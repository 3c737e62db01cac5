from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.losses import sdm
from finegrain.methods import Batch, TbpsClipConfig
from finegrain.methods.tbps_clip import LOSSES, RITC_EPSILON
from finegrain.models import ConvConfig, TextConfig, VitConfig

TINY = TbpsClipConfig(image=VitConfig(), text=TextConfig(dropout=0.05)).tiny()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    size = (TINY.image.height, TINY.image.width)
    return Batch(
        pixels=torch.randint(0, 256, (4, 3, *size), generator=generator).byte(),
        ids=torch.randint(1, 400, (4, 9), generator=generator, dtype=torch.int32),
        eot=torch.tensor([3, 8, 5, 8], dtype=torch.int32),
        pids=torch.tensor([0, 1, 1, 2]),
        items=torch.arange(4),
        where=("",) * 4,
    )


def test_it_returns_the_requested_losses(batch):
    for names in (LOSSES, ("nitc", "ritc"), ("citc",)):
        losses = TINY.build(names)(batch)
        assert losses.keys() == set(names)
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    with pytest.raises(RecipeError, match=r"TBPS-CLIP computes the losses nitc, ritc, citc.*ss"):
        TINY.build(("nitc", "ss"))


def test_every_parameter_except_the_patches_has_a_gradient(batch):
    model = TINY.build(LOSSES)
    torch.stack(list(model(batch).values())).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == ["image_tower.conv1.weight"]


def test_labels_become_softer_over_the_ramp(batch):
    """Without dropout, the soft labels are the model's own. The loss changes only by the
    softness."""
    model = TINY.build(("nitc",)).eval()
    result = []
    with torch.no_grad():
        for _ in range(8):
            result.append(model(batch)["nitc"].item())
            model.after_step()
    assert int(model.steps_done) == 8
    differences = [b - a for a, b in pairwise(result)]
    assert differences[:5] == pytest.approx([differences[0]] * 5, abs=1e-5)
    assert abs(differences[0]) > 1e-4
    assert differences[5:] == [0, 0]


def test_the_step_count_is_in_the_checkpoint():
    model = TINY.build()
    model.after_step()
    again = TINY.build()
    again.load_state_dict(model.state_dict())
    assert int(again.steps_done) == 1


def test_the_scale_is_capped_and_its_gradient_is_not(batch):
    """As if only the value were replaced in place, as the released code does."""
    model = TINY.build(("ritc",)).eval()
    torch.nn.init.constant_(model.logit_scale, 5.0)
    loss = model(batch)["ritc"]
    loss.backward()
    images, texts = model.encode_images(batch.pixels), model.encode_texts(batch.ids, batch.eot)
    scale = torch.tensor(100.0, requires_grad=True)
    expected = sdm(images.detach(), texts.detach(), batch.pids, scale, epsilon=RITC_EPSILON) / 2
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model.logit_scale.grad.item() == pytest.approx(scale.grad.item() * math.exp(5), rel=1e-4)
    model.after_step()
    assert model.logit_scale.item() == 5.0
    assert TINY.build().logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_other_towers_have_no_patches_to_freeze():
    model = replace(TINY, image=ConvConfig().tiny()).build()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_pixels_are_normalised_as_the_recipe_says():
    tower = replace(TINY.image, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).build(8)
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    torch.testing.assert_close(tower.pixel_norm(pixels)[0, 0, 0], torch.tensor([-2.0, 2.0]))
