"""An interrupted and resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from finegrain.errors import CheckpointError
from finegrain.models import ConvConfig
from finegrain.recipe import Schedule
from finegrain.runs.checkpoint import MODEL, OPTIMIZER, last_checkpoint, read_state
from finegrain.training import train


def assert_same_end(one, other):
    a, b = last_checkpoint(one), last_checkpoint(other)
    assert read_state(a) == read_state(b)
    for file in (MODEL, OPTIMIZER):
        left, right = load_file(a / file), load_file(b / file)
        assert left.keys() == right.keys()
        unequal = [name for name in left if not torch.equal(left[name], right[name])]
        assert unequal == [], f"{file}: {unequal}"


def with_convolutions(recipe):
    method = replace(recipe.method, image=ConvConfig(height=32, width=16, channels=(8, 8, 8, 8)))
    return replace(recipe, method=method)


@pytest.mark.parametrize("workers", [0, 2])
def test_ten_and_ten_resumed_steps_equal_twenty(recipe, workers, tmp_path):
    """Step 10 is in the middle of the second epoch, and the schedule ends in the third."""
    recipe = replace(recipe, workers=workers)
    straight = train(replace(recipe, workers=0), tmp_path / "straight", progress=False)
    first = train(recipe, tmp_path / "resumed", stop_after=10, progress=False)
    second = train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert (straight.steps, first.steps, second.steps) == (20, 10, 20)
    assert first.losses + second.losses == straight.losses
    assert_same_end(tmp_path / "straight", tmp_path / "resumed")
    assert str(second.validation) == str(straight.validation)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_convolutional_tower_resumes_exactly(recipe, kind, tmp_path):
    recipe = replace(
        with_convolutions(recipe),
        optimizer=replace(recipe.optimizer, kind=kind),
        schedule=Schedule(epochs=1, steps=4),
    )
    straight = train(recipe, tmp_path / "straight", progress=False)
    first = train(recipe, tmp_path / "resumed", stop_after=2, progress=False)
    second = train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses
    assert_same_end(tmp_path / "straight", tmp_path / "resumed")


def test_a_run_without_a_checkpoint_starts_again(brief, tmp_path):
    (tmp_path / "recipe.json").write_text(brief.to_json())
    assert train(brief, tmp_path, resume=True, progress=False).steps == 2


def test_a_finished_run_has_no_steps_to_resume(brief, tmp_path):
    train(brief, tmp_path, progress=False)
    again = train(brief, tmp_path, resume=True, progress=False)
    assert (again.steps, again.losses) == (2, [])


def test_a_run_is_not_overwritten(brief, tmp_path):
    train(brief, tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"already holds a run.*--resume.*-o"):
        train(brief, tmp_path, progress=False)


def test_another_recipe_does_not_resume(brief, tmp_path):
    train(brief, tmp_path, progress=False)
    other = replace(brief, optimizer=replace(brief.optimizer, lr=0.5))
    with pytest.raises(CheckpointError, match=r"optimizer\.lr: 0\.002 there, 0\.5 here"):
        train(other, tmp_path, resume=True, progress=False)
    assert json.loads((tmp_path / "recipe.json").read_text())["optimizer"]["lr"] == 0.002


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_truncated_checkpoint_is_an_error(file, brief, tmp_path):
    train(brief, tmp_path, stop_after=1, progress=False)
    path = last_checkpoint(tmp_path) / file
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f"{file} is missing or damaged"):
        train(brief, tmp_path, resume=True, progress=False)


def test_partial_checkpoints_of_a_crash_are_ignored(brief, tmp_path):
    straight = train(brief, tmp_path / "straight", progress=False)
    train(brief, tmp_path / "crashed", stop_after=1, progress=False)
    half = tmp_path / "crashed" / "checkpoints" / ".000002.tmp"
    half.mkdir()
    (half / MODEL).write_bytes(b"half a file")
    resumed = train(brief, tmp_path / "crashed", resume=True, progress=False)
    assert resumed.losses == straight.losses[1:]
    assert not half.exists()
    assert_same_end(tmp_path / "straight", tmp_path / "crashed")
