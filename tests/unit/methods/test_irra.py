from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.methods import Batch, IrraConfig
from finegrain.methods.token_masking import mask_words
from finegrain.models import ConvConfig, TextConfig, TimmConfig, VitConfig

TINY = IrraConfig(image=VitConfig(), text=TextConfig()).tiny()
ALL = ("sdm", "id", "mlm", "itc", "cmpm")


@pytest.fixture
def batch():
    ids = torch.zeros(4, 12, dtype=torch.int32)
    ids[:, 0], ids[:, 1:9], ids[:, 9] = 49406, torch.randint(1, 49405, (4, 8)), 49407
    return Batch(
        pixels=torch.randint(0, 256, (4, 3, TINY.image.height, TINY.image.width)).byte(),
        ids=ids,
        eot=torch.full((4,), 9, dtype=torch.int32),
        pids=torch.tensor([0, 1, 1, 7]),
        items=torch.arange(4),
        where=("a", "b", "c", "d"),
    )


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("identities", "millions"), [(11003, 194.535), (3102, 190.482), (3701, 190.790)]
)
def test_parameter_counts_equal_those_of_the_paper(identities, millions):
    """For CUHK-PEDES, ICFG-PEDES and RSTPReid."""
    config = IrraConfig(image=VitConfig(), text=TextConfig(), identities=identities)
    with torch.device("meta"):
        trained, searched = config.build(), config.build(["sdm"])
    assert count(trained) / 1e6 == pytest.approx(millions, abs=0.001)
    assert count(searched) / 1e6 == pytest.approx(149.618, abs=0.001)


def test_it_returns_the_requested_losses(batch):
    for names in (ALL, ("sdm",), ("mlm", "id"), ("itc", "cmpm")):
        losses = TINY.build(names)(batch)
        assert losses.keys() == set(names)
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


def test_heads_exist_for_their_losses_only():
    names = {name.split(".")[0] for name, _ in TINY.build(["sdm"]).named_parameters()}
    assert names == {"image_tower", "text_tower"}


def test_every_parameter_has_a_gradient(batch):
    model = TINY.build(ALL)
    torch.stack(list(model(batch).values())).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


def test_masked_words_are_used_by_all_losses_or_by_mlm_only(batch):
    model = TINY.build(["sdm", "mlm"])
    torch.manual_seed(3)
    everywhere = model(batch)["sdm"]
    torch.manual_seed(3)
    masked = mask_words(model._padded(batch.ids), rate=TINY.mask_rate).ids
    model.config = replace(TINY, hide="mlm")
    plain = TINY.build(["sdm"])
    plain.load_state_dict({n: p for n, p in model.state_dict().items() if n in plain.state_dict()})
    torch.testing.assert_close(model(batch)["sdm"], plain(batch)["sdm"])
    torch.testing.assert_close(everywhere, plain(replace(batch, ids=masked))["sdm"])
    assert not torch.equal(everywhere, plain(batch)["sdm"])


def test_mlm_equals_that_of_a_head_at_every_position(batch):
    """The fast implementation computes the head at masked positions only."""
    model = TINY.build(["mlm"])
    masked = mask_words(model._padded(batch.ids))
    images = model.image_tower.tokens(batch.pixels)
    texts = model.text_tower.tokens(masked.ids)
    fused = model.fusion(texts, images)
    scores = model.mlm_head(fused).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(
        scores, masked.targets.flatten().long(), ignore_index=0
    )
    torch.testing.assert_close(model._mlm(fused, masked), expected)


def test_a_conv_tower_has_tokens(batch):
    config = replace(TINY, image=ConvConfig(height=128, width=64).tiny())
    pixels = batch.pixels[:, :, ::2, ::2]
    tower = config.build(["mlm"]).image_tower.eval()
    tokens = tower.tokens(pixels)
    torch.testing.assert_close(tokens[:, 0], tower(pixels))
    assert config.build(ALL)(replace(batch, pixels=pixels)).keys() == set(ALL)


def test_a_timm_tower_has_no_tokens():
    config = replace(TINY, image=TimmConfig(model="resnet18", height=64, width=32))
    assert config.build(["sdm", "id"])
    with pytest.raises(RecipeError, match="tokens of a picture"):
        config.build(["mlm"])


def test_unknown_losses_are_refused():
    with pytest.raises(RecipeError, match=r"IRRA computes the losses sdm, id, mlm.*asks for mim"):
        TINY.build(["sdm", "mim"])
    with pytest.raises(RecipeError, match="asks for none"):
        TINY.build([])


def test_the_number_of_identities_must_be_that_of_the_data():
    model = TINY.build(["id"])
    model.check_identities(48)
    with pytest.raises(RecipeError, match=r"48 people.*has 50; --set method.identities=50"):
        model.check_identities(50)
    TINY.build(["sdm"]).check_identities(50)
