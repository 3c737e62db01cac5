from __future__ import annotations

import pytest
import torch
from torch import nn

from finegrain.errors import RecipeError, WeightsError
from finegrain.models import TextConfig, TimmConfig, VitConfig
from finegrain.models.transformer import Transformer
from finegrain.zoo.renaming import check_fits, rename

PIXELS = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
VIT = VitConfig(height=64, width=32, patch=16, channels=24, depth=1, heads=2)


@pytest.mark.parametrize(
    "config",
    [
        VIT,
        TimmConfig(model="resnet10t", height=64, width=32),
        TimmConfig(model="vit_tiny_patch16_224", height=64, width=32),
    ],
    ids=["clip", "resnet", "timm vit"],
)
@torch.no_grad()
def test_image_towers_take_any_number_of_pictures(config):
    tower = config.build(embed_dim=12).eval()
    whole = tower(PIXELS)
    assert (whole.shape, whole.dtype) == ((3, 12), torch.float32)
    for i in range(3):
        torch.testing.assert_close(tower(PIXELS[i : i + 1])[0], whole[i], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_are_the_class_token_then_patches_in_raster_order():
    torch.manual_seed(0)
    tower = VIT.build(embed_dim=12).eval()
    tokens = tower.tokens(PIXELS)
    assert tokens.shape == (3, 1 + 4 * 2, 12)
    torch.testing.assert_close(tokens[:, 0], tower(PIXELS), atol=1e-6, rtol=1e-5)
    # Without attention, a token depends on its own patch only.
    torch.nn.init.zeros_(tower.transformer.resblocks[0].attn.out_proj.weight)
    tokens = tower.tokens(PIXELS)
    changed = PIXELS.clone()
    changed[:, :, 16:32, 16:32] ^= 255  # row 1, column 1
    moved = (tower.tokens(changed) - tokens).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 + 1 * 2 + 1]


def test_sizes_must_divide_into_patches():
    with pytest.raises(RecipeError, match="60x32 does not divide into patches of 16"):
        VitConfig(height=60, width=32, patch=16).build(8)


def test_an_unknown_backbone_gets_suggestions():
    with pytest.raises(RecipeError, match=r"has no model 'resnet10x'.*resnet"):
        TimmConfig(model="resnet10x", height=32, width=32).build(8)
    with pytest.raises(RecipeError, match="Similar names: none"):
        TimmConfig(model="qqqqqqqq", height=32, width=32).build(8)


def test_tiny_towers_are_of_the_same_kind():
    assert VitConfig(activation="gelu").tiny().activation == "gelu"
    assert VitConfig().tiny().depth == 2
    assert TimmConfig(model="resnet50", height=384, width=128).tiny() == TimmConfig(
        model="resnet50", height=64, width=32
    )
    assert TextConfig(vocabulary=7, context_length=5).tiny().vocabulary == 7


def test_residual_branches_start_smaller_the_deeper_the_tower():
    """Radford et al. 2021, released code: width^-0.5 (2 depth)^-0.5."""
    torch.manual_seed(0)
    deep = TextConfig(vocabulary=9, channels=128, depth=8, heads=4).build(embed_dim=8)
    for block in deep.transformer.resblocks:
        assert block.attn.out_proj.weight.std().item() == pytest.approx(128**-0.5 / 4, rel=0.05)
        assert block.mlp.c_proj.weight.std().item() == pytest.approx(128**-0.5 / 4, rel=0.05)
        assert block.mlp.c_fc.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)


def test_rename_uses_the_first_match_and_its_groups():
    state = {name: torch.ones(1) for name in ("a.0.x.1", "b", "skip.me")}
    table = {"a.{}.x.{}": "ours.{}.y.{}", "a.{}": "never", "b": "beta"}
    assert list(rename(state, table, ["skip.{}"])) == ["ours.0.y.1", "beta"]


def test_rename_treats_dots_literally():
    with pytest.raises(WeightsError, match="axb"):
        rename({"axb": torch.ones(1)}, {"a.b": "c"})


def test_check_fits_lists_every_kind_of_mismatch():
    model = {name: torch.ones(2) for name in "abc"}
    state = {"a": torch.ones(2), "b": torch.ones(3), "d": torch.ones(1)}
    with pytest.raises(WeightsError) as raised:
        check_fits(state, model)
    message = str(raised.value)
    assert "1 missing: c; 1 left over: d; 1 of another shape: b (3,) for (2,)" in message
    check_fits(model, model)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_text_tower_in_training_computes_the_same_embeddings(count):
    """In parts by length, and with little but the end tokens in the last block."""
    torch.manual_seed(count)
    tower = TextConfig(context_length=20, channels=16, depth=3, heads=2).build(8).double()
    nn.init.normal_(tower.transformer.resblocks[2].attn.in_proj_bias)
    eot = torch.randint(1, 20, (count,), dtype=torch.int32)
    ids = torch.randint(1, 1000, (count, 20), dtype=torch.int32)
    gradients = []
    for mode in (True, False):
        tower.train(mode).zero_grad()
        embeddings = tower(ids, eot)
        embeddings.square().sum().backward()
        gradients.append([embeddings, *(p.grad for p in tower.parameters())])
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_a_block_can_compute_one_position_only():
    tower = Transformer(width=8, depth=2, heads=2, activation="gelu", causal=False)
    x, at = torch.randn(3, 5, 8), torch.tensor([4, 0, 2])
    torch.testing.assert_close(tower.at(x, at), tower(x)[torch.arange(3), at])
