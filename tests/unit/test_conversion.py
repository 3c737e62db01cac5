from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from finegrain.checkpoint import last_checkpoint
from finegrain.cli import main
from finegrain.conversion import as_overrides, released_to_run, run_to_released
from finegrain.data.datasets import CuhkPedes, IcfgPedes
from finegrain.errors import CheckpointError, FinegrainError, RecipeError, WeightsError
from finegrain.methods import ClipConfig, IrraConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.weights import export_irra
from finegrain.models.weights.released_config import read_released_config
from finegrain.recipe import Recipe, load_recipe, override
from finegrain.run import load_run

ALL = ("sdm", "id", "mlm")
RECIPES = Path(__file__).parents[2] / "recipes"
DEFAULTS = {
    "MLM": True,
    "alpha": 0.9,
    "batch_size": 64,
    "beta": 0.999,
    "cmt_depth": 4,
    "id_loss_weight": 1.0,
    "img_size": (384, 128),
    "loss_names": "sdm+mlm+id",
    "lr": 1e-05,
    "lrscheduler": "cosine",
    "mlm_loss_weight": 1.0,
    "num_epoch": 60,
    "optimizer": "Adam",
    "pretrain_choice": "ViT-B/16",
    "stride_size": 16,
    "temperature": 0.02,
    "text_length": 77,
    "vocab_size": 49408,
    "warmup_epochs": 5,
    "warmup_factor": 0.1,
    "weight_decay": 4e-05,
}
"""How the released checkpoints were trained, but for the dataset."""


def recipe(**method):
    small = IrraConfig(
        image=VitConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
        text=TextConfig(channels=16, depth=1, heads=2),
        embed_dim=16,
        identities=5,
        fusion_depth=1,
    )
    return Recipe(
        name="small",
        about="a small IRRA",
        data=CuhkPedes(root="elsewhere"),
        method=replace(small, **method),
        losses=dict.fromkeys(ALL, 1.0),
    )


@pytest.fixture
def released(tmp_path):
    """A checkpoint with all heads, alone in its folder."""
    torch.manual_seed(0)
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save({"model": export_irra(recipe().method.build(ALL))}, folder / "best.pth")
    return folder / "best.pth"


def tensors(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


# --- there ------------------------------------------------------------------------------


def test_the_towers_become_a_run_that_loads(released, tmp_path):
    out = tmp_path / "runs" / "irra"
    converted = released_to_run(released, out, recipe=recipe())
    assert converted.recipe == load_recipe(out)
    assert converted.recipe.losses == {"sdm": 1.0}
    assert (converted.recipe.name, converted.recipe.weights) == ("irra", str(released))
    assert "no training heads" in str(converted)
    _, method, checkpoint = load_run(out)
    assert checkpoint == last_checkpoint(out)
    towers = {n: t for n, t in tensors(released).items() if n.startswith("base_model.")}
    assert_same(export_irra(method), towers)


def test_with_heads_everything_comes_back(released, tmp_path):
    out, back = tmp_path / "run", tmp_path / "back" / "best.pth"
    converted = released_to_run(released, out, recipe=recipe(), heads=True)
    assert converted.recipe.losses == dict.fromkeys(ALL, 1.0)
    assert run_to_released(out, back) == back
    assert_same(tensors(back), tensors(released))
    assert [path.name for path in back.parent.iterdir()] == ["best.pth"]


def test_heads_of_another_dataset(released, tmp_path):
    other = recipe(identities=9)
    with pytest.raises(WeightsError, match=r"classifier.weight \(5, 16\) for \(9, 16\)"):
        released_to_run(released, tmp_path / "run", recipe=other, heads=True)
    assert not (tmp_path / "run").exists()
    released_to_run(released, tmp_path / "run", recipe=other)


def test_losses_without_any_that_can_stay(released, tmp_path):
    alone = replace(recipe(), losses={"id": 1.0})
    assert released_to_run(released, tmp_path / "run", recipe=alone).recipe.losses == {"sdm": 1.0}


def test_the_configuration_beside_the_weights(released, tmp_path):
    """It is read unless a recipe is given; that it is shows in its being refused."""
    released.with_name("configs.yaml").write_text("name: !!python/name:os.system\n")
    with pytest.raises(WeightsError, match=r"configs\.yaml asks for"):
        released_to_run(released, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert released_to_run(released, tmp_path / "run", recipe=recipe()).config is None


def test_the_order_of_recipe_configuration_and_overrides(released, tmp_path):
    config = tmp_path / "configs.yaml"
    said = {"temperature": 0.05, "dataset_name": "ICFG-PEDES", "num_epoch": 7, "img_aug": True}
    config.write_text(yaml.dump(said))
    converted = released_to_run(
        released,
        tmp_path / "run",
        recipe=recipe(),
        config=config,
        overrides=["schedule.epochs=3", "data.root=pictures"],
    )
    assert converted.recipe.method.temperature == 0.05
    assert converted.recipe.data == IcfgPedes(root="pictures")
    assert converted.recipe.schedule.epochs == 3
    assert str(converted).endswith("configs.yaml, and ignored: img_aug")


@pytest.mark.parametrize("dataset", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"])
def test_the_released_configurations_say_what_our_recipes_say(dataset, tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(DEFAULTS | {"dataset_name": dataset}))
    ours = load_recipe(RECIPES / f"irra_{dataset.lower().replace('-', '_')}.py")
    fields = read_released_config(path).fields
    assert len(fields) >= len(DEFAULTS) - 2
    assert override(ours, as_overrides(fields)) == ours


@pytest.mark.parametrize("said", [{"lr": "fast"}, {"lr": "2001-01-01"}, {"loss_names": "TAL"}])
def test_a_configuration_of_wrong_values(released, tmp_path, said):
    config = tmp_path / "configs.yaml"
    config.write_text("\n".join(f"{name}: {value}" for name, value in said.items()))
    with pytest.raises(RecipeError):
        released_to_run(released, tmp_path / "run", recipe=recipe(), config=config, heads=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_alone(released, tmp_path):
    released_to_run(released, tmp_path / "run", recipe=recipe())
    with pytest.raises(CheckpointError, match="already holds a run"):
        released_to_run(released, tmp_path / "run", recipe=recipe())


def test_a_clip_becomes_a_run_as_well(tmp_path):
    irra = recipe()
    clip = ClipConfig(image=irra.method.image, text=irra.method.text, embed_dim=16)
    state = {
        name.removeprefix("base_model."): tensor
        for name, tensor in export_irra(clip.build()).items()
    }
    torch.save(state, tmp_path / "clip.pt")
    start = replace(irra, method=clip, losses={"itc": 1.0})
    released_to_run(tmp_path / "clip.pt", tmp_path / "run", recipe=start)
    assert torch.equal(load_run(tmp_path / "run")[1].image_tower.proj, state["visual.proj"])


# --- back -------------------------------------------------------------------------------


def test_what_cannot_be_written(released, tmp_path):
    released_to_run(released, tmp_path / "run", recipe=recipe())
    with pytest.raises(CheckpointError, match=r"such as .*best\.pth, got a folder"):
        run_to_released(tmp_path / "run", tmp_path)
    with pytest.raises(FinegrainError, match="there is no recipe"):
        run_to_released(tmp_path, tmp_path / "best.pth")


# --- the verb ---------------------------------------------------------------------------


def test_the_verb_goes_both_ways(released, tmp_path, capsys):
    start, run, back = tmp_path / "start.json", tmp_path / "run", tmp_path / "back.pth"
    start.write_text(recipe().to_json())
    options = ["--recipe", str(start), "--set", "data.root=pictures", "--heads"]
    assert main(["convert", str(released), "-o", str(run), *options]) == 0
    assert f"finegrain export {run}" in capsys.readouterr().out
    assert json.loads((run / "recipe.json").read_text())["data"]["root"] == "pictures"
    assert main(["convert", str(run), "-o", str(back)]) == 0
    assert capsys.readouterr().out == f"wrote {back}\n"
    assert_same(tensors(back), tensors(released))
    assert main(["convert", str(run), "-o", str(back), "--heads"]) == 1
    assert "go with a released checkpoint" in capsys.readouterr().err


def test_the_verb_of_a_missing_file(tmp_path, capsys):
    (tmp_path / "start.json").write_text(recipe().to_json())
    options = ["--recipe", str(tmp_path / "start.json"), "-o", str(tmp_path / "run")]
    assert main(["convert", str(tmp_path / "best.pth"), *options]) == 1
    assert "there is no weight file" in capsys.readouterr().err
