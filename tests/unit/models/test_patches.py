from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.models.patches import PatchConfig, PatchEncoder, cut


def test_patches_come_in_raster_order():
    pictures = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = cut(pictures, 2)
    assert patches.shape == (2, 4, 3, 2, 3)
    for number in range(4):
        row, column = divmod(number, 2)
        there = pictures[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert torch.equal(patches[:, number], there)


def test_what_does_not_fill_a_patch_is_left_out():
    pictures = torch.randn(1, 3, 11, 8)
    assert torch.equal(cut(pictures, 4), cut(pictures[:, :, :8], 4))


def test_a_picture_must_have_a_pixel_for_each_patch():
    with pytest.raises(RecipeError, match=r"4x9 has no 5x5 patches; choose a smaller grid"):
        cut(torch.zeros(1, 3, 4, 9), 5)


def test_the_defaults_are_those_of_the_paper():
    config = PatchConfig()
    assert (config.model, config.count, config.pixels) == ("resnet50", 64, 224)
    assert PatchConfig(grids=(1, 2, 3, 4, 5)).count == 55
    with torch.device("meta"):
        assert PatchEncoder(config).features == 2048


def test_each_patch_is_seen_alone_at_the_size_of_the_backbone():
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(1, 2), pixels=32)).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 24)).byte()
    features = encoder(pixels)
    assert features.shape == (2, 5, encoder.features)
    last = encoder.pixel_norm(pixels)[:, :, 8:, 12:]
    alone = encoder.backbone(F.interpolate(last, (32, 32), mode="bilinear"))
    torch.testing.assert_close(features[:, 4], alone, atol=1e-5, rtol=1e-4)
    whole = encoder.backbone(F.interpolate(encoder.pixel_norm(pixels), (32, 32), mode="bilinear"))
    torch.testing.assert_close(features[:, 0], whole, atol=1e-5, rtol=1e-4)


def test_a_frozen_backbone_stays_as_it_is():
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(2,), pixels=32)).train()
    before = {name: tensor.clone() for name, tensor in encoder.backbone.state_dict().items()}
    assert not encoder(torch.zeros(2, 3, 16, 16).byte()).requires_grad
    assert not encoder.backbone.training
    assert all(torch.equal(before[n], t) for n, t in encoder.backbone.state_dict().items())


def test_a_backbone_that_learns_gets_gradients():
    encoder = PatchEncoder(PatchConfig().tiny())
    encoder.train()(torch.randint(0, 256, (2, 3, 16, 16)).byte()).sum().backward()
    assert encoder.backbone.training
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_wrong_settings_are_refused():
    with pytest.raises(RecipeError, match=r"no model 'resnet5000'"):
        PatchEncoder(PatchConfig(model="resnet5000"))
    for grids in ((), (8, 0)):
        with pytest.raises(RecipeError, match="expected grids of 1 row or more"):
            PatchConfig(grids=grids)
