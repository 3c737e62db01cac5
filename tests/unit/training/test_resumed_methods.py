"""Methods with state resume exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from finegrain.errors import RecipeError
from finegrain.methods import ItselfConfig, MinedConfig, RasaConfig, RdeConfig, TbpsClipConfig
from finegrain.methods.itself import LOSSES, Narrowing
from finegrain.models.albef_image import AlbefImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.models.rollout import Rollout
from finegrain.runs.checkpoint import MODEL, OPTIMIZER, last_checkpoint
from finegrain.training import train


@pytest.fixture
def rde(recipe):
    method = RdeConfig(
        image=recipe.method.image,
        text=recipe.method.text,
        global_dim=16,
        selected_dim=16,
        items=64,
    )
    return replace(recipe, method=method, losses={"bge": 1.0, "tse": 1.0}, caption_noise=0.25)


@pytest.fixture
def itself(recipe):
    method = ItselfConfig(
        image=recipe.method.image,
        text=recipe.method.text,
        global_dim=16,
        selected_dim=16,
        rollout=Rollout(layers=(0,)),
        narrowing=Narrowing(start=0.9, end=0.2, steps=14),
        identities=16,
    )
    losses = dict.fromkeys(LOSSES, 1.0)
    return replace(recipe, method=method, losses=losses, items_per_identity=2)


@pytest.fixture
def tbps_clip(recipe):
    method = TbpsClipConfig(
        image=recipe.method.image,
        text=replace(recipe.method.text, dropout=0.1),
        embed_dim=16,
        ramp=15,
    )
    augment = replace(recipe.augment, picks=2, drop_words=0.1)
    return replace(
        recipe, method=method, losses={"nitc": 1.0, "ritc": 1.0, "citc": 0.1}, augment=augment
    )


@pytest.fixture
def mined(recipe):
    method = MinedConfig(
        image=recipe.method.image,
        text=recipe.method.text,
        embed_dim=16,
        identities=16,
        fusion_depth=1,
        decay=0.9,
        queue=27,
        hardest=5,
    )
    losses = {"sdm": 1.0, "id": 1.0, "mlm": 1.0, "queue": 1.0, "itm": 1.0, "swap": 1.0}
    return replace(recipe, method=method, losses=losses)


@pytest.fixture
def rasa(recipe):
    method = RasaConfig(
        image=AlbefImageConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
        text=AlbefTextConfig(
            vocabulary=49408, context_length=16, channels=16, depth=1, fusion_depth=1, heads=2
        ),
        embed_dim=16,
        momentum=0.9,
        queue=27,
        ramp=8,
    )
    losses = {"cl": 0.5, "pitm": 1.0, "mlm": 1.0, "prd": 0.5, "mrtd": 0.5}
    return replace(recipe, method=method, losses=losses, weak_positives=0.3)


def resumed_at_ten(recipe, folder):
    """An epoch has eight steps, so step 10 is in the second one."""
    straight = train(recipe, folder / "straight", progress=False)
    first = train(recipe, folder / "resumed", stop_after=10, progress=False)
    halfway = load_file(last_checkpoint(folder / "resumed") / MODEL)
    second = train(recipe, folder / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses
    for file in (MODEL, OPTIMIZER):
        one, other = (
            load_file(last_checkpoint(folder / run) / file) for run in ("straight", "resumed")
        )
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    return halfway


@pytest.mark.slow
def test_rde_resumes_with_its_division(rde, tmp_path):
    halfway = resumed_at_ten(rde, tmp_path)
    assert 0 < halfway["trusted"].sum() < 64


@pytest.mark.slow
def test_itself_resumes_with_its_share_of_tokens(itself, tmp_path):
    assert int(resumed_at_ten(itself, tmp_path)["steps_done"]) == 10


@pytest.mark.slow
def test_tbps_clip_resumes_with_its_ramp(tbps_clip, tmp_path):
    assert int(resumed_at_ten(tbps_clip, tmp_path)["steps_done"]) == 10


@pytest.mark.slow
def test_mined_resumes_with_its_queues_and_copy(mined, tmp_path):
    halfway = resumed_at_ten(mined, tmp_path)
    assert int(halfway["text_queue.pointer"]) == 80 % 27
    assert (halfway["text_queue.ids"] >= 0).all()
    copied, trained = (halfway[f"{part}image_tower.proj"] for part in ("momentum.module.", ""))
    assert not torch.equal(copied, trained)


@pytest.mark.slow
def test_rasa_resumes_with_its_queues_and_copies(rasa, tmp_path):
    halfway = resumed_at_ten(rasa, tmp_path)
    assert int(halfway["image_queue.pointer"]) == 80 % 27
    assert int(halfway["steps_done"]) == 10
    copied, trained = (
        halfway[f"{part}.bert.layers.1.cross.key.weight"]
        for part in ("text_momentum.module", "text_tower")
    )
    assert not torch.equal(copied, trained)


def test_the_number_of_pairs_must_be_that_of_the_split(rde, tmp_path):
    wrong = replace(rde, method=replace(rde.method, items=63))
    with pytest.raises(RecipeError, match=r"has 64; --set method\.items=64"):
        train(wrong, tmp_path, progress=False)
