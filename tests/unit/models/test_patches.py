from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.models import patches
from finegrain.models.patches import PatchConfig, PatchEncoder, cut


def test_patches_come_in_raster_order():
    pictures = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    cells = cut(pictures, 2)
    assert cells.shape == (2, 4, 3, 2, 3)
    for number in range(4):
        row, column = divmod(number, 2)
        there = pictures[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert torch.equal(cells[:, number], there)


def test_pixels_that_do_not_fill_a_patch_are_left_out():
    pictures = torch.randn(1, 3, 11, 8)
    assert torch.equal(cut(pictures, 4), cut(pictures[:, :, :8], 4))


def test_a_picture_must_have_a_pixel_for_each_patch():
    with pytest.raises(RecipeError, match=r"4x9 has no 5x5 patches; choose a smaller grid"):
        cut(torch.zeros(1, 3, 4, 9), 5)


def test_the_defaults_equal_those_of_the_paper():
    config = PatchConfig()
    assert (config.model, config.count, config.pixels) == ("resnet50", 64, 224)
    assert PatchConfig(grids=(1, 2, 3, 4, 5)).count == 55
    with torch.device("meta"):
        assert PatchEncoder(config).features == 2048


def test_each_patch_is_resized_and_encoded_separately():
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(1, 2), pixels=32)).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 24)).byte()
    features = encoder(pixels)
    assert features.shape == (2, 5, encoder.features)
    last = encoder.pixel_norm(pixels)[:, :, 8:, 12:]
    alone = encoder.backbone(F.interpolate(last, (32, 32), mode="bilinear"))
    torch.testing.assert_close(features[:, 4], alone, atol=1e-5, rtol=1e-4)
    whole = encoder.backbone(F.interpolate(encoder.pixel_norm(pixels), (32, 32), mode="bilinear"))
    torch.testing.assert_close(features[:, 0], whole, atol=1e-5, rtol=1e-4)


def test_a_frozen_backbone_does_not_change():
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(2,), pixels=32)).train()
    before = {name: tensor.clone() for name, tensor in encoder.backbone.state_dict().items()}
    assert not encoder(torch.zeros(2, 3, 16, 16).byte()).requires_grad
    assert not encoder.backbone.training
    assert all(torch.equal(before[n], t) for n, t in encoder.backbone.state_dict().items())


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_encoding_patches_in_parts_equals_encoding_all_at_once(at_once, monkeypatch):
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(1, 2, 3), pixels=32))
    pixels = torch.randint(0, 256, (3, 3, 25, 18)).byte()
    together = []
    for grid in encoder.config.grids:
        cells = cut(encoder.pixel_norm(pixels), grid).flatten(0, 1)
        whole = F.interpolate(cells, (32, 32), mode="bilinear")
        together.append(encoder.train().backbone(whole).view(3, grid * grid, -1))
    seen = []
    backbone = encoder.backbone.forward
    monkeypatch.setattr(patches, "SEEN_AT_ONCE", at_once)
    monkeypatch.setattr(encoder.backbone, "forward", lambda x: seen.append(len(x)) or backbone(x))
    torch.testing.assert_close(encoder(pixels), torch.cat(together, dim=1), atol=1e-5, rtol=1e-5)
    assert max(seen) <= at_once
    assert sum(seen) == 3 * (1 + 4 + 9)


def test_a_trained_backbone_encodes_a_batch_at_once(monkeypatch):
    """In parts, its batch statistics would differ."""
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(1, 2), pixels=32, frozen=False))
    seen = []
    backbone = encoder.backbone.forward
    monkeypatch.setattr(patches, "SEEN_AT_ONCE", 2)
    monkeypatch.setattr(encoder.backbone, "forward", lambda x: seen.append(len(x)) or backbone(x))
    encoder.train()(torch.randint(0, 256, (3, 3, 16, 16)).byte())
    assert seen == [15]


@torch.no_grad()
def test_a_frozen_backbone_is_exported_for_any_number_of_pictures():
    encoder = PatchEncoder(PatchConfig(model="test_resnet", grids=(2,), pixels=32)).eval()
    pixels = torch.randint(0, 256, (5, 3, 16, 16)).byte()
    dynamic = ({0: torch.export.Dim("pictures", min=1)},)
    program = torch.export.export(encoder, (pixels[:2],), dynamic_shapes=dynamic).module()
    for n in (1, 5):
        torch.testing.assert_close(program(pixels[:n]), encoder(pixels[:n]), atol=1e-5, rtol=1e-5)


def test_a_trained_backbone_has_gradients():
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
