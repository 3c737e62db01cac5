from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.errors import RecipeError, WeightsError
from finegrain.methods import Batch, RdeConfig, rde
from finegrain.methods.consensus import Consensus
from finegrain.models import ConvConfig, TextConfig, TimmConfig, VitConfig
from finegrain.zoo import rde as layout
from finegrain.zoo.loading import load_clip_weights

TINY = replace(RdeConfig(image=VitConfig(), text=TextConfig()).tiny(), items=6)
CONV = replace(TINY, image=ConvConfig(height=128, width=64).tiny())


def batch_of(config, numbers=(0, 1, 2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, size = len(numbers), (config.image.height, config.image.width)
    ids = torch.zeros(n, 12, dtype=torch.int32)
    ids[:, 0], ids[:, 9] = 49406, 49407
    ids[:, 1:9] = torch.randint(1, 49405, (n, 8), generator=generator)
    return Batch(
        pixels=torch.randint(0, 256, (n, 3, *size), generator=generator).byte(),
        ids=ids,
        eot=torch.full((n,), 9, dtype=torch.int32),
        pids=torch.arange(n),
        items=torch.tensor(numbers),
        where=("",) * n,
    )


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_equal_those_used_by_the_released_code():
    """The released code has 1,841,664 for images and 1,316,352 for captions."""
    with torch.device("meta"):
        model = RdeConfig(image=VitConfig(), text=TextConfig()).build()
    linear, norm = 512 * 1024 + 1024, 2 * 1024
    assert count(model.image_selection) == 1_841_664 - linear - norm
    assert count(model.text_selection) == 1_316_352 - norm
    towers = count(model.image_tower) + count(model.text_tower)
    assert towers / 1e6 == pytest.approx(149.618, abs=0.001)


@pytest.mark.parametrize("config", [TINY, CONV], ids=["vit", "conv"])
def test_both_embeddings_are_one_vector_of_unit_length(config):
    model, batch = config.build().eval(), batch_of(config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = model.encode_images(batch.pixels), model.encode_texts(batch.ids, batch.eot)
    for embeddings in result:
        assert (embeddings.shape, embeddings.dtype) == ((4, config.embed_dim), torch.float32)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [TINY, CONV], ids=["vit", "conv"])
def test_every_parameter_has_a_gradient(config):
    model = config.build()
    losses = model(batch_of(config))
    assert losses.keys() == {"bge", "tse"}
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_losses_of_several_captions_of_a_picture_are_added():
    config = replace(TINY, disturb=0.0)
    batch = batch_of(config)
    twice = replace(batch, ids=batch.ids.repeat_interleave(2, 0), eot=batch.eot.repeat(2))
    model = config.build().eval()
    assert model._item_losses(twice)["bge"].shape == (4,)


@torch.no_grad()
def test_pairs_that_are_not_trusted_have_no_weight():
    config = replace(TINY, disturb=0.0)
    model, batch = config.build().eval(), batch_of(config, numbers=(5, 0, 3, 1))
    each = model._item_losses(batch)["bge"]
    model.trusted[torch.tensor([0, 1])] = False
    torch.testing.assert_close(model(batch)["bge"], each[0] + each[2])
    alone = replace(config, consensus=None).build().eval()
    alone.load_state_dict({n: p for n, p in model.state_dict().items() if n != "trusted"})
    torch.testing.assert_close(alone(batch)["bge"], each.sum())


def test_the_division_excludes_pairs_with_high_losses(monkeypatch):
    """Both views agree that items 2 and 4 are wrong. Item 5 is in no batch."""
    model = TINY.build()
    model.trusted.fill_(False)
    costs = torch.tensor([0.1, 0.12, 0.9, 0.1, 0.95])

    def losses(batch):
        assert not model.training
        return {"bge": costs[batch.items], "tse": 2 * costs[batch.items]}

    monkeypatch.setattr(model, "_item_losses", losses)
    model.start_epoch(0, iter([batch_of(TINY, (4, 0, 2)), batch_of(TINY, (1, 3))]))
    assert model.trusted.tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize(("noise", "iterations"), [(0.2, 10), (0.5, 100)])
def test_the_division_is_fitted_for_the_known_noise(noise, iterations, monkeypatch):
    model, fits = TINY.build(), []
    costs = torch.tensor([0.1, 0.12, 0.9, 0.1, 0.95])
    monkeypatch.setattr(
        model, "_item_losses", lambda batch: dict.fromkeys(("bge", "tse"), costs[batch.items])
    )
    monkeypatch.setattr(
        rde, "consensus", lambda a, b, fit, seed: fits.append(fit) or np.ones(len(a), bool)
    )
    model.expect_noise(noise)
    model.start_epoch(0, iter([batch_of(TINY, (4, 0, 2))]))
    assert [fit.iterations for fit in fits] == [iterations]


def test_without_consensus_no_batch_is_read():
    model = replace(TINY, consensus=None).build()
    model.start_epoch(0, (pytest.fail("looked") for _ in range(1)))
    assert "trusted" not in model.state_dict()
    model.check_items(7)


def test_the_first_epochs_may_trust_all_pairs():
    """Towers with random weights cannot detect wrong pairs."""
    waiting = replace(TINY, consensus=Consensus(start=2))
    model = waiting.build()
    model.start_epoch(1, (pytest.fail("looked") for _ in range(1)))
    assert model.trusted.all()
    looked = []
    model.start_epoch(2, (looked.append(b) or b for b in [batch_of(TINY, (4, 0, 2))]))
    assert len(looked) == 1


def test_the_number_of_pairs_must_be_that_of_the_data():
    model = TINY.build()
    model.check_items(6)
    with pytest.raises(RecipeError, match=r"6 pairs.*has 7; --set method.items=7"):
        model.check_items(7)


@pytest.mark.parametrize("losses", [(), ("bge",), ("bge", "tse", "sdm")])
def test_it_trains_by_both_losses(losses):
    with pytest.raises(RecipeError, match=r"bge and tse.*asks for"):
        TINY.build(losses)


def test_a_timm_tower_has_no_tokens():
    with pytest.raises(RecipeError, match="selects among the tokens"):
        replace(TINY, image=TimmConfig(model="resnet18", height=64, width=32)).build()


def test_released_names_are_converted_in_both_directions():
    model = TINY.build()
    theirs = model.to_released()
    assert "visul_emb_layer.mlp.layers.1.weight" in theirs
    assert "texual_emb_layer.linear.bias" in theirs
    idle = {
        "visul_emb_layer.linear.bias": torch.ones(3),
        "texual_emb_layer.mlp.bns.1.weight": torch.ones(3),
    }
    ours = layout.convert(theirs | idle)
    expected = {n: t for n, t in model.state_dict().items() if n != "trusted"}
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_a_conv_tower_cannot_be_written_in_the_released_layout():
    with pytest.raises(WeightsError, match=r"CLIP vision transformer.*ConvTower"):
        CONV.build().to_released()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_file_is_loaded_with_its_selections(prefix, tmp_path):
    """Also if heads are to stay fresh, because search needs the selections."""
    theirs = TINY.build()
    state = {prefix + name: tensor for name, tensor in theirs.to_released().items()}
    torch.save({"model": state}, tmp_path / "best.pth")
    ours = TINY.build()
    ours.trusted[3] = False
    load_clip_weights(ours, tmp_path / "best.pth", parts=ours.pretrained_parts)
    left = [n for n, t in ours.state_dict().items() if not torch.equal(t, theirs.state_dict()[n])]
    assert left == ["trusted"]


def test_search_needs_a_file_with_selections(tmp_path):
    theirs, ours = TINY.build(), TINY.build()
    state = theirs.to_released()
    towers = {name: tensor for name, tensor in state.items() if name.startswith("base_model.")}
    torch.save(towers, tmp_path / "best.pth")
    load_clip_weights(ours, tmp_path / "best.pth", parts=ours.pretrained_parts)
    assert torch.equal(ours.image_tower.proj, theirs.image_tower.proj)
    with pytest.raises(WeightsError, match="missing: image_selection"):
        load_clip_weights(ours, tmp_path / "best.pth", parts=ours.search_parts)
