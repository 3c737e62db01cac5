from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.methods import Batch, IrraConfig, MinedConfig, TwoTowers
from finegrain.methods.hard_negatives import color_tokens
from finegrain.methods.mined import LOSSES
from finegrain.models import ConvConfig, TextConfig, TimmConfig, VitConfig

TINY = MinedConfig(image=ConvConfig(), text=TextConfig()).tiny()
COLORS = color_tokens(TINY.text.tokenizer())
OWN = ("tal", "queue", "itm", "swap")


def batch_of(pids, *, captions=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = captions * len(pids)
    ids = torch.randint(1, 400, (rows, 9), generator=generator, dtype=torch.int32)
    ids[:, 2], ids[:, 6] = COLORS[0], COLORS[5]
    ids[:, 0], ids[:, 8] = 49406, 49407
    size = (len(pids), 3, TINY.image.height, TINY.image.width)
    return Batch(
        pixels=torch.randint(0, 256, size, generator=generator).byte(),
        ids=ids,
        eot=torch.full((rows,), 8, dtype=torch.int32),
        pids=torch.tensor(pids),
        items=torch.arange(len(pids)),
        where=("",) * len(pids),
    )


@pytest.fixture
def batch():
    return batch_of([0, 1, 1, 2])


def step(model, batch):
    losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    model.zero_grad()
    model.after_step()
    return losses


@pytest.mark.parametrize(
    "names", [LOSSES, ("queue",), ("sdm", "itm"), ("swap", "tal"), ("id", "mlm")]
)
def test_it_returns_the_requested_losses(batch, names):
    losses = TINY.build(names)(batch)
    assert losses.keys() == set(names)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


def test_unknown_losses_and_useless_sizes_are_refused():
    with pytest.raises(RecipeError, match=r"Mined computes the losses sdm, .* asks for mim"):
        TINY.build(["sdm", "mim"])
    with pytest.raises(RecipeError, match="expected queue and hardest of 1 or more, got 20 and 0"):
        replace(TINY, hardest=0)
    with pytest.raises(RecipeError, match="got 0 and 4"):
        replace(TINY, queue=0)


def test_a_timm_tower_has_no_tokens_to_match():
    config = replace(TINY, image=TimmConfig(model="resnet18", height=64, width=32))
    assert config.build(["sdm", "queue", "swap"])
    with pytest.raises(RecipeError, match="itm looks at the tokens of a picture"):
        config.build(["sdm", "itm"])


def test_losses_of_irra_equal_irras(batch):
    names = ("sdm", "id", "mlm", "itc", "cmpm")
    torch.manual_seed(1)
    ours = TINY.build(names)
    torch.manual_seed(1)
    known = [field.name for field in fields(IrraConfig)]
    irra = IrraConfig(**{name: getattr(TINY, name) for name in known}).build(names)
    result = []
    for model in (ours, irra):
        torch.manual_seed(2)
        result.append(model(batch))
    assert result[0] == result[1]


def test_every_parameter_except_those_of_the_copy_has_a_gradient(batch):
    model = TINY.build(LOSSES)
    torch.stack(list(model(batch).values())).sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in model.named_parameters() if name.startswith("momentum.")}
    assert idle


def test_parts_exist_for_their_losses_only():
    parts = {
        name: {key.split(".")[0] for key in TINY.build([name]).state_dict()}
        - {"image_tower", "text_tower"}
        for name in OWN
    }
    assert parts == {
        "tal": set(),
        "queue": {"momentum", "image_queue", "text_queue"},
        "itm": {"fusion", "match_head"},
        "swap": set(),
    }


def test_search_uses_the_towers_only(batch):
    """No list of parts for search names the other parts, and they do not change embeddings."""
    model = TINY.build(LOSSES).eval()
    with torch.no_grad():
        model(batch)
    state = model.state_dict()
    searched = {name: t for name, t in state.items() if name.split(".")[0] in model.search_parts}
    towers = TwoTowers(model.image_tower, model.text_tower)
    assert searched.keys() == towers.state_dict().keys()
    for name, parameter in model.named_parameters():
        if name not in searched:
            parameter.data.fill_(torch.nan)
    with torch.no_grad():
        assert model.encode_images(batch.pixels).isfinite().all()
        assert model.encode_texts(batch.ids, batch.eot).isfinite().all()


def test_only_parts_of_irras_layout_are_written():
    config = replace(TINY, image=VitConfig().tiny())
    with torch.device("meta"):
        exported = [config.build(names).to_released() for names in (LOSSES, ("sdm", "id", "mlm"))]
    assert exported[0].keys() == exported[1].keys()


def test_queues_are_filled_by_the_copy_after_the_step(batch):
    model = TINY.build(["queue"])
    model.start_epoch(0, ())
    with torch.no_grad():
        keys = model.momentum.module.encode_images(batch.pixels)
    losses = model(batch)
    assert not model.image_queue.filled.any()
    losses["queue"].backward()
    model.after_step()
    assert model.image_queue.ids.tolist()[:5] == [0, 1, 1, 2, -100]
    assert model.text_queue.ids.tolist()[:9] == [0, 0, 1, 1, 1, 1, 2, 2, -100]
    torch.testing.assert_close(model.image_queue.features[:4], keys)


def test_the_copy_starts_from_loaded_weights_and_then_lags(batch):
    model = TINY.build(["queue"])
    with torch.no_grad():
        model.image_tower.proj.weight.mul_(
            2
        )  # as if pretrained weights were loaded after the build
    copied = model.momentum.module.image_tower.proj.weight
    model.start_epoch(0, ())
    assert torch.equal(copied, model.image_tower.proj.weight)
    before = copied.clone()
    step(model, batch)
    expected = torch.lerp(before, model.image_tower.proj.weight, 1 - TINY.decay)
    torch.testing.assert_close(copied, expected)
    assert not torch.equal(copied, model.image_tower.proj.weight)
    model.start_epoch(1, ())
    assert not torch.equal(copied, model.image_tower.proj.weight)


def test_the_queue_raises_the_loss_unless_it_has_the_same_people(batch):
    """From the second step on. With one person only, there are no negatives."""
    model = TINY.build(["queue"]).eval()
    with torch.no_grad():
        alone = model(batch)["queue"]
        model.after_step()
        same = model(batch_of([0, 1, 1, 2]))["queue"]
        model.image_queue.ids[:4], model.text_queue.ids[:8] = 7, 7
        others = model(batch)["queue"]
        nobody = model(batch_of([7, 7]))["queue"]
    assert others > same >= alone > 0
    assert nobody == 0


def test_matching_of_one_person_has_no_negatives():
    model = TINY.build(["itm"])
    loss = model(batch_of([3, 3]))["itm"]
    loss.backward()
    assert loss.isfinite()
    assert model.match_head.weight.grad.isfinite().all()


def test_the_match_head_learns_the_pairs_of_a_batch():
    torch.manual_seed(0)
    model = TINY.build(["itm"])
    model.text_tower.token_embedding.requires_grad_(
        False
    )  # the queue takes most of the time and is not needed here
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=3e-3)
    batch = batch_of([0, 1, 2, 3], captions=1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(batch)["itm"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_caption_without_two_colors_is_ignored_by_swap(batch):
    plain = batch.ids.clone()
    plain[:, 2] = 320
    model = TINY.build(["swap"]).eval()
    with torch.no_grad():
        assert model(replace(batch, ids=plain))["swap"] == 0
        assert model(batch)["swap"] > 0
