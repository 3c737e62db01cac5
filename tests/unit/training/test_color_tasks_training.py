"""A run with colour tasks can be saved, resumed, opened and used as a start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from finegrain.methods.color_tasks import PART
from finegrain.runs.checkpoint import MODEL, OPTIMIZER, last_checkpoint
from finegrain.runs.run import load_run, open_model
from finegrain.training import train

LOSSES = {"itc": 1.0, "colorize": 2.0, "color_words": 0.5}


@pytest.mark.slow
def test_it_resumes_exactly(recipe, tmp_path):
    recipe = replace(recipe, losses=LOSSES, captions=2, schedule=replace(recipe.schedule, steps=8))
    straight = train(recipe, tmp_path / "straight", progress=False)
    first = train(recipe, tmp_path / "resumed", stop_after=5, progress=False)
    second = train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses
    for file in (MODEL, OPTIMIZER):
        one, other = (
            load_file(last_checkpoint(tmp_path / run) / file) for run in ("straight", "resumed")
        )
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_heads_are_in_the_checkpoint_and_not_in_what_starts_from_it(brief, tmp_path):
    taught = replace(brief, losses=LOSSES)
    train(taught, tmp_path / "taught", progress=False)
    _, method, checkpoint = load_run(tmp_path / "taught")
    assert any(name.startswith(f"{PART}.") for name in load_file(checkpoint / MODEL))
    encoder, data = open_model(tmp_path / "taught")
    assert (encoder.embed_dim, data) == (16, brief.data)

    plain = replace(brief, weights=str(tmp_path / "taught"))
    train(plain, tmp_path / "plain", progress=False)
    again = replace(taught, weights=str(tmp_path / "plain"))
    train(again, tmp_path / "again", progress=False)
    assert method.get_submodule(PART).tasks == ("colorize", "color_words")
