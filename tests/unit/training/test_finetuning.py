"""Frozen parameters, low-rank updates, early stopping and the curves of a run."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from finegrain.errors import EvaluationError, RecipeError
from finegrain.evaluation.report import improvement
from finegrain.recipe import Lora, Schedule
from finegrain.runs.checkpoint import MODEL, folder_of, last_checkpoint, read_state
from finegrain.runs.run import build_method, load_run
from finegrain.training import train
from finegrain.training.curves import read_curves


def changed(run, recipe):
    """Names of the tensors that a training changed."""
    torch.manual_seed(recipe.seed)
    before = build_method(recipe).state_dict()
    after = load_file(last_checkpoint(run) / MODEL)
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_frozen_parameters_keep_their_values(recipe, tmp_path):
    frozen = ("image_tower.conv1.", "text_tower.transformer.")
    recipe = replace(
        recipe,
        frozen=tuple(f"{prefix}*" for prefix in frozen),
        schedule=Schedule(epochs=1, steps=3),
    )
    train(recipe, tmp_path, progress=False)
    names = changed(tmp_path, recipe)
    assert any(name.startswith("image_tower.transformer.") for name in names)
    assert not [name for name in names if name.startswith(frozen)]


def test_low_rank_updates_train_and_are_merged(recipe, tmp_path):
    recipe = replace(recipe, lora=Lora(rank=2), schedule=Schedule(epochs=1, steps=4))
    straight = train(recipe, tmp_path / "straight", progress=False)
    first = train(recipe, tmp_path / "resumed", stop_after=2, progress=False)
    second = train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert first.losses + second.losses == straight.losses
    state = load_file(last_checkpoint(tmp_path / "straight") / MODEL)
    originals = {n: t for n, t in state.items() if n.endswith(".original")}
    assert len(originals) == 2 * 4  # two towers of one block with four matrices
    torch.manual_seed(recipe.seed)
    start = build_method(recipe).state_dict()
    for name, tensor in originals.items():
        assert torch.equal(
            tensor, start[name.replace(".parametrizations", "").removesuffix(".original")]
        )
    _, method, _ = load_run(tmp_path / "straight")
    merged = method.state_dict()
    assert merged.keys() == start.keys()
    name = "image_tower.transformer.resblocks.0.attn.in_proj_weight"
    assert not torch.equal(merged[name], start[name])
    # Another training can start from the merged weights.
    again = build_method(replace(recipe, lora=None, weights=str(tmp_path / "straight")))
    torch.testing.assert_close(again.state_dict()[name], merged[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen": ("image_towel.*",)}, r"frozen names 'image_towel\.\*', and no parameter"),
        ({"frozen": ("*",)}, "nothing to train"),
        ({"lora": Lora(names=("nothing",))}, "no matrix has a name like lora.names nothing"),
    ],
)
def test_wrong_patterns_are_refused(recipe, change, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        train(replace(recipe, **change), tmp_path, progress=False)


def test_training_stops_when_validation_does_not_improve(recipe, tmp_path):
    """With a learning rate of zero, no evaluation is better than the first one."""
    recipe = replace(
        recipe,
        optimizer=replace(recipe.optimizer, lr=0.0, weight_decay=0.0),
        schedule=Schedule(epochs=50, evaluate_first=True, patience=2),
    )
    run = train(recipe, tmp_path, progress=False)
    state = read_state(last_checkpoint(tmp_path))
    per_epoch = run.steps // 2
    assert state.best_step == 0
    assert run.steps == 2 * per_epoch < 50 * per_epoch
    assert folder_of(tmp_path, 0).is_dir()
    table = improvement(tmp_path)
    assert "starting weights" in table
    assert table.splitlines()[-1].split()[1:] == ["0.00"] * 5


def test_starting_weights_must_be_evaluated(recipe, tmp_path):
    train(replace(recipe, schedule=Schedule(epochs=1, steps=2)), tmp_path, progress=False)
    with pytest.raises(EvaluationError, match="evaluate_first=true"):
        improvement(tmp_path)


def test_curves_of_an_interrupted_run_equal_those_of_an_uninterrupted_one(recipe, tmp_path):
    recipe = replace(recipe, schedule=Schedule(epochs=1, steps=4))
    train(recipe, tmp_path / "straight", progress=False)
    train(recipe, tmp_path / "resumed", stop_after=2, progress=False)
    with (tmp_path / "resumed" / "curves.csv").open("a") as file:
        file.write("3,0.1,7\n4,0.1")  # steps after the last checkpoint, and a truncated row
    train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert read_curves(tmp_path / "resumed") == read_curves(tmp_path / "straight")
    with (tmp_path / "straight" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert set(rows[0]) == {"step", "lr", "itc"}
    assert Image.open(tmp_path / "straight" / "curves.png").size[0] > 1000
