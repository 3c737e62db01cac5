"""A run can start from the towers of a run of any method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finegrain.errors import WeightsError
from finegrain.methods import IrraConfig
from finegrain.runs.checkpoint import best_checkpoint, load_model
from finegrain.runs.run import build_method
from finegrain.training import train


@pytest.fixture
def first_run(brief, tmp_path):
    train(brief, tmp_path / "first", progress=False)
    return tmp_path / "first"


def irra_on(recipe, folder):
    method = recipe.method
    config = IrraConfig(
        image=method.image, text=method.text, embed_dim=method.embed_dim, identities=5
    )
    return replace(recipe, method=config, losses={"sdm": 1.0, "id": 1.0}, weights=str(folder))


def test_towers_start_from_the_selected_checkpoint(brief, first_run):
    trained = brief.method.build(brief.losses)
    load_model(best_checkpoint(first_run), trained)
    started = build_method(irra_on(brief, first_run))
    for tower in ("image_tower", "text_tower"):
        own = started.get_submodule(tower).state_dict()
        for name, tensor in trained.get_submodule(tower).state_dict().items():
            assert torch.equal(own[name], tensor), name


def test_towers_of_another_size_are_refused(brief, first_run):
    other = irra_on(brief, first_run)
    text = replace(other.method.text, depth=other.method.text.depth + 1)
    with pytest.raises(WeightsError, match="do not fit the model"):
        build_method(replace(other, method=replace(other.method, text=text)))


def test_missing_weights_are_an_error(brief, tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pt, which does not exist.*weights=PATH"):
        build_method(replace(brief, weights=str(tmp_path / "nowhere.pt")))
