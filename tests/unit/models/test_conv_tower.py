from __future__ import annotations

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.models import ConvConfig


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return ConvConfig(height=128, width=64, channels=(8, 16, 16, 32)).build(24).eval()


def pixels(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, 128, 64), dtype=torch.uint8, generator=generator)


def test_each_picture_has_one_embedding(tower):
    assert tower(pixels(3)).shape == (3, 24)


def test_a_picture_does_not_depend_on_its_batch(tower):
    batch = pixels(4)
    with torch.no_grad():
        together = tower(batch)
        alone = torch.cat([tower(picture[None]) for picture in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_rows_of_the_last_map_are_projected_separately(tower):
    """The columns of a row are averaged."""
    with torch.no_grad():
        last_map = tower.backbone(tower.pixel_norm(pixels(2)))
        # The stem and three of the four stages halve the picture.
        assert last_map.shape == (2, 32, 8, 4)
        expected = torch.stack(
            [
                sum(
                    tower.proj.weight.view(24, 32, 8)[:, :, row] @ last_map[n, :, row].mean(dim=1)
                    for row in range(8)
                )
                for n in range(2)
            ]
        )
        torch.testing.assert_close(tower(pixels(2)), expected, atol=1e-5, rtol=1e-5)


def test_a_stem_of_patches_reads_each_patch_separately():
    torch.manual_seed(0)
    tower = ConvConfig(height=64, width=32, channels=(8, 16, 16, 32), patch=4).build(24).eval()
    picture = pixels(1)[:, :, :64, :32]
    changed = picture.clone()
    changed[:, :, 8:12, 4:8] = 255 - changed[:, :, 8:12, 4:8]
    with torch.no_grad():
        before, after = (tower.backbone.conv1(tower.pixel_norm(p)) for p in (picture, changed))
        moved = (before != after).any(dim=1)[0]
        assert moved.nonzero().tolist() == [[2, 1]]
        # Three of the four stages halve the map of 16x8 patches.
        assert tower.backbone(tower.pixel_norm(picture)).shape == (1, 32, 2, 1)
        assert tower(picture).shape == (1, 24)


@pytest.mark.parametrize("patch", [-4, 3, 48])
def test_patches_that_do_not_tile_the_picture_are_refused(patch):
    with pytest.raises(RecipeError, match=rf"128x64 does not divide into patches of {patch}"):
        ConvConfig(height=128, width=64, patch=patch).build(8)


def test_the_tiny_form_is_of_the_same_kind():
    tiny = ConvConfig().tiny()
    assert isinstance(tiny, ConvConfig)
    assert tiny.height < ConvConfig().height
    assert tiny.build(8)(torch.zeros(1, 3, tiny.height, tiny.width, dtype=torch.uint8)).shape == (
        1,
        8,
    )
