from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finegrain.errors import RecipeError, WeightsError
from finegrain.methods import Batch, ItselfConfig
from finegrain.methods.itself import LOSSES, Narrowing
from finegrain.models import ConvConfig, TextConfig, TimmConfig, VitConfig
from finegrain.models.rollout import Rollout
from finegrain.zoo import itself as layout

TINY = ItselfConfig(image=VitConfig(), text=TextConfig()).tiny()
CONV = replace(TINY, image=ConvConfig(height=128, width=64).tiny())


def batch_of(config, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(n, 12, dtype=torch.int32)
    ids[:, 0], ids[:, 9] = 49406, 49407
    ids[:, 1:9] = torch.randint(1, 49405, (n, 8), generator=generator)
    size = (config.image.height, config.image.width)
    return Batch(
        pixels=torch.randint(0, 256, (n, 3, *size), generator=generator).byte(),
        ids=ids,
        eot=torch.full((n,), 9, dtype=torch.int32),
        pids=torch.arange(n) // 2,
        items=torch.arange(n),
        where=("",) * n,
    )


@pytest.mark.parametrize("config", [TINY, CONV], ids=["vit", "conv"])
def test_every_parameter_has_a_gradient(config):
    model = config.build()
    losses = model(batch_of(config))
    assert set(losses) == set(LOSSES)
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_share_of_selected_tokens_falls_with_the_steps_and_is_constant_in_evaluation():
    model = replace(TINY, narrowing=Narrowing(start=0.8, end=0.2, steps=2)).build()
    shares = []
    for _ in range(4):
        shares.append(model.ratio)
        model.after_step()
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert model.state_dict()["steps_done"] == 4
    assert model.eval().ratio == TINY.ratio
    assert model.rollout is None
    assert model.train().rollout == TINY.rollout
    assert replace(TINY, narrowing=None).build().ratio == TINY.ratio


@torch.no_grad()
def test_training_and_evaluation_select_by_other_layers():
    """All else equal: the selections are in evaluation mode, and select as many tokens."""
    model, pixels = replace(TINY, narrowing=None).build(), batch_of(TINY, n=8).pixels
    for block in model.image_tower.transformer.resblocks:
        block.attn.in_proj_weight.normal_(std=1.0)
    model.train().image_selection.eval()
    rolled = model._images(pixels).selected
    assert not torch.allclose(model.eval()._images(pixels).selected, rolled)


@pytest.mark.parametrize("kept", [("cid_global",), ("id_selected",), ()])
def test_losses_may_be_left_out_with_their_classifiers(kept):
    model = TINY.build(("tal_global", "tal_selected", *kept))
    assert set(model(batch_of(TINY))) == {"tal_global", "tal_selected", *kept}
    heads = {name.split(".")[1] for name in model.state_dict() if "_heads" in name}
    assert heads == {"cid_global": {"mix", "pairs"}, "id_selected": {"people"}}.get(
        "".join(kept), set()
    )


@pytest.mark.parametrize("losses", [("tal_global",), ("cid_global", "tal_selected")])
def test_both_embeddings_are_ranked(losses):
    with pytest.raises(RecipeError, match=r"trains by tal_global and tal_selected"):
        TINY.build(losses)


def test_an_unknown_loss_is_refused():
    with pytest.raises(RecipeError, match="bge"):
        TINY.build((*LOSSES, "bge"))


def test_the_number_of_identities_must_be_that_of_the_data():
    TINY.build().check_identities(48)
    TINY.build(("tal_global", "tal_selected")).check_identities(47)
    with pytest.raises(RecipeError, match=r"48 people.*has 47; --set method.identities=47"):
        TINY.build().check_identities(47)


@pytest.mark.parametrize("layers", [(), (1, 0), (0, 0), (0, 2), (-1, 1)])
def test_the_layers_of_the_rollout_must_exist(layers):
    with pytest.raises(RecipeError, match=r"ascending order, from 0 to 1 in towers of 2 layers"):
        replace(TINY, rollout=Rollout(layers=layers))


def test_a_timm_tower_has_no_tokens():
    with pytest.raises(RecipeError, match="ITSELF selects among the tokens"):
        replace(TINY, image=TimmConfig(model="resnet18", height=64, width=32)).build()


def test_released_names_are_converted_in_both_directions():
    model = TINY.build()
    theirs = model.to_released()
    names = ("classifier_grab.weight", "mlp_global.1.bias", "classifier_id_global.bias")
    assert set(names) < set(theirs)
    ours = layout.convert(theirs)
    assert ours.keys() == model.state_dict().keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())


def test_a_conv_tower_cannot_be_written_in_the_released_layout():
    with pytest.raises(WeightsError, match=r"ITSELF's layout.*CLIP vision transformer.*ConvTower"):
        CONV.build().to_released()
