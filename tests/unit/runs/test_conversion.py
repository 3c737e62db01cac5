from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from finegrain.cli.parser import main
from finegrain.data.datasets import CuhkPedes, IcfgPedes
from finegrain.errors import CheckpointError, FinegrainError, RecipeError, WeightsError
from finegrain.methods import ClipConfig, IrraConfig, RdeConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Recipe, load_recipe, override
from finegrain.runs import released_recipe
from finegrain.runs.checkpoint import last_checkpoint
from finegrain.runs.conversion import as_overrides, released_to_run, run_to_released
from finegrain.runs.run import load_run
from finegrain.training import train
from finegrain.zoo.loading import export_irra
from finegrain.zoo.released_config import read_released_config

ALL = ("sdm", "id", "mlm")
RECIPES = Path(__file__).parents[3] / "recipes"
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
"""Settings of the released training, except for the dataset."""


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
    """A checkpoint with all heads, in its own folder."""
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


# --- from a released checkpoint to a run ------------------------------------------------


def test_the_towers_become_a_run(released, tmp_path):
    out = tmp_path / "runs" / "irra"
    converted = released_to_run(released, out, recipe=recipe())
    assert converted.recipe == load_recipe(out)
    assert converted.recipe.losses == {"sdm": 1.0}
    assert (converted.recipe.name, converted.recipe.weights) == ("irra", str(released))
    assert "no training heads" in str(converted)
    assert "is a checkpoint of IRRA, or of a fork" in str(converted)
    _, method, checkpoint = load_run(out)
    assert checkpoint == last_checkpoint(out)
    towers = {n: t for n, t in tensors(released).items() if n.startswith("base_model.")}
    assert_same(export_irra(method), towers)


def test_with_heads_all_tensors_are_restored(released, tmp_path):
    out, back = tmp_path / "run", tmp_path / "back" / "best.pth"
    converted = released_to_run(released, out, recipe=recipe(), heads=True)
    assert converted.recipe.losses == dict.fromkeys(ALL, 1.0)
    assert run_to_released(out, back) == back
    assert_same(tensors(back), tensors(released))
    assert [path.name for path in back.parent.iterdir()] == ["best.pth"]


def test_heads_of_another_dataset_are_refused(released, tmp_path):
    other = recipe(identities=9)
    with pytest.raises(WeightsError, match=r"classifier.weight \(5, 16\) for \(9, 16\)"):
        released_to_run(released, tmp_path / "run", recipe=other, heads=True)
    assert not (tmp_path / "run").exists()
    released_to_run(released, tmp_path / "run", recipe=other)


def test_losses_that_all_need_heads_are_replaced_by_sdm(released, tmp_path):
    alone = replace(recipe(), losses={"id": 1.0})
    assert released_to_run(released, tmp_path / "run", recipe=alone).recipe.losses == {"sdm": 1.0}


def test_the_configuration_beside_the_weights_is_read(released, tmp_path):
    """It is read unless a recipe is given; the test shows it by a configuration that is refused."""
    released.with_name("configs.yaml").write_text("name: !!python/name:os.system\n")
    with pytest.raises(WeightsError, match=r"configs\.yaml asks for"):
        released_to_run(released, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert released_to_run(released, tmp_path / "run", recipe=recipe()).config is None


def test_configuration_and_overrides_are_applied_to_the_recipe(released, tmp_path):
    config = tmp_path / "configs.yaml"
    said = {"temperature": 0.05, "dataset_name": "ICFG-PEDES", "num_epoch": 7, "gamma": 0.1}
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
    assert "configs.yaml, and ignored: gamma\n" in str(converted)


@pytest.mark.parametrize("dataset", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"])
def test_the_released_configurations_agree_with_the_recipes(dataset, tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(DEFAULTS | {"dataset_name": dataset}))
    ours = load_recipe(RECIPES / f"irra_{dataset.lower().replace('-', '_')}.py")
    fields = read_released_config(path).fields
    assert len(fields) >= len(DEFAULTS) - 2
    assert override(ours, as_overrides(fields)) == ours


@pytest.mark.parametrize("said", [{"lr": "fast"}, {"lr": "2001-01-01"}, {"loss_names": "TAL"}])
def test_a_configuration_with_wrong_values_is_refused(released, tmp_path, said):
    config = tmp_path / "configs.yaml"
    config.write_text("\n".join(f"{name}: {value}" for name, value in said.items()))
    with pytest.raises(RecipeError):
        released_to_run(released, tmp_path / "run", recipe=recipe(), config=config, heads=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_not_overwritten(released, tmp_path):
    released_to_run(released, tmp_path / "run", recipe=recipe())
    with pytest.raises(CheckpointError, match="already holds a run"):
        released_to_run(released, tmp_path / "run", recipe=recipe())


def test_a_clip_becomes_a_run(tmp_path):
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


# --- the choice of the recipe ------------------------------------------------------------


def full_size(method, losses, path):
    """A checkpoint of the released sizes with sparse weights, and its content."""
    with torch.device("meta"):
        built = method.build(losses)
    released = built.to_released()
    state = {n: torch.zeros(t.shape, dtype=torch.float16) for n, t in released.items()}
    torch.save({"model": state}, path)
    return state


@pytest.fixture(scope="module")
def rde_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rde")
    method = RdeConfig(image=VitConfig(), text=TextConfig(), consensus=None)
    full_size(method, ("bge", "tse"), folder / "best.pth")
    return folder / "best.pth"


RDE = DEFAULTS | {
    "loss_names": "TAL+sr0.3_tau0.015_margin0.1_n0.0",
    "tau": 0.015,
    "margin": 0.1,
    "select_ratio": 0.3,
    "noisy_rate": 0.0,
    "txt_aug": True,
    "img_aug": True,
}


@pytest.mark.parametrize("dataset", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"])
def test_the_configuration_of_rde_agrees_with_the_recipe(dataset, tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(RDE | {"dataset_name": dataset}))
    ours = load_recipe(RECIPES / f"rde_{dataset.lower().replace('-', '_')}.py")
    read = read_released_config(path, fork="rde")
    assert read.different == {}
    assert override(ours, as_overrides(read.fields)) == ours


ITSELF = DEFAULTS | {
    "loss_names": "tal+cid",
    "tau": 0.015,
    "margin": 0.1,
    "select_ratio": 0.4,
    "txt_aug": True,
    "img_aug": True,
    "sampler": "identity",
    "num_instance": 2,
    "batch_size": 256,
    "return_all": True,
    "topk_type": "custom",
    "modify_k": True,
}


@pytest.mark.parametrize("dataset", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"])
def test_the_configuration_of_itself_agrees_with_the_recipe(dataset, tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(ITSELF | {"dataset_name": dataset}))
    ours = load_recipe(RECIPES / f"itself_{dataset.lower().replace('-', '_')}.py")
    read = read_released_config(path, fork="itself")
    assert read.different == {}
    assert override(ours, as_overrides(read.fields)) == ours


def test_itself_without_its_options_selects_by_the_last_layer(tmp_path):
    path = tmp_path / "configs.yaml"
    plain = {"return_all": False, "topk_type": "mean", "modify_k": False, "sampler": "random"}
    path.write_text(yaml.dump(ITSELF | plain))
    read = read_released_config(path, fork="itself")
    assert read.different == {}
    recipe = override(load_recipe(RECIPES / "itself_rstpreid.py"), as_overrides(read.fields))
    assert recipe.method.rollout is None
    assert recipe.method.narrowing is None
    assert recipe.items_per_identity == 1


@pytest.mark.parametrize("kind", ["mean", "std", "layer_index"])
def test_other_ways_of_itself_to_choose_tokens_are_reported(kind, tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(ITSELF | {"topk_type": kind}))
    assert read_released_config(path, fork="itself").different == {"topk_type": kind}


@pytest.mark.slow
def test_rde_is_recognised_with_its_configuration_beside_it(rde_file, tmp_path, capsys):
    config = rde_file.with_name("configs.yaml")
    config.write_text(yaml.dump(RDE | {"dataset_name": "ICFG-PEDES"}))
    try:
        assert main(["convert", str(rde_file), "-o", str(tmp_path / "run")]) == 0
    finally:
        config.unlink()
    assert "is a checkpoint of RDE" in capsys.readouterr().out
    converted = load_recipe(tmp_path / "run")
    own = load_recipe(RECIPES / "rde_icfg_pedes.py")
    assert converted.evaluation_only is None
    assert replace(
        own, name="run", about="converted from best.pth", weights=str(rde_file), expected=None,
        data=converted.data,
    ) == converted  # fmt: skip


@pytest.mark.slow
def test_rde_without_a_configuration_is_for_evaluation_only(rde_file, tmp_path):
    converted = released_to_run(rde_file, tmp_path / "run")
    assert isinstance(converted.recipe.method, RdeConfig)
    assert "no configuration of the released code says" in converted.recipe.evaluation_only
    assert "for evaluation and export only" in str(converted)
    with pytest.raises(RecipeError, match=r"evaluation and export only.*--set weights="):
        train(converted.recipe, tmp_path / "trained")
    assert not (tmp_path / "trained").exists()


def test_a_recipe_of_another_method_is_named(rde_file, tmp_path):
    irra = replace(recipe(), method=IrraConfig(image=VitConfig(), text=TextConfig()))
    with pytest.raises(WeightsError, match=r"checkpoint of RDE, which needs .*rde_cuhk_pedes.py"):
        released_to_run(rde_file, tmp_path / "run", recipe=irra)


def test_a_given_recipe_with_all_heads_can_be_trained(released, tmp_path):
    kept = released_to_run(released, tmp_path / "kept", recipe=recipe(), heads=True)
    assert kept.recipe.evaluation_only is None
    left = released_to_run(released, tmp_path / "left", recipe=recipe())
    assert "heads of id, mlm were left out" in left.recipe.evaluation_only


def test_settings_that_no_recipe_can_express_are_refused(released, tmp_path):
    config = tmp_path / "configs.yaml"
    config.write_text(yaml.dump({"sampler": "identity", "optimizer": "SGD"}))
    converted = released_to_run(
        released, tmp_path / "run", recipe=recipe(), config=config, heads=True
    )
    assert "sampler = identity, optimizer = SGD" in converted.recipe.evaluation_only


def test_without_its_shipped_recipe_a_run_is_for_evaluation_only(rde_file, tmp_path, monkeypatch):
    monkeypatch.setattr(released_recipe, "RECIPES", tmp_path / "nowhere")
    config = tmp_path / "configs.yaml"
    config.write_text(yaml.dump(RDE | {"dataset_name": "CUHK-PEDES"}))
    converted = released_to_run(rde_file, tmp_path / "run", config=config)
    assert "rde_cuhk_pedes.py, which trains it, is not part" in converted.recipe.evaluation_only


def test_a_file_with_finegrains_names_needs_a_recipe(tmp_path):
    torch.save({"image_tower.proj": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"finegrain's own names.*--recipe"):
        released_to_run(tmp_path / "model.pt", tmp_path / "run")


# --- CLIP --------------------------------------------------------------------------------


def clip_file(path, **changes):
    """A CLIP of two blocks and 64 channels in open_clip's layout."""
    torch.manual_seed(0)
    towers = {
        "image": VitConfig(height=32, width=32, patch=8, channels=64, depth=2, heads=1),
        "text": TextConfig(channels=64, depth=1, heads=1),
    }
    method = ClipConfig(**towers, embed_dim=16).build()
    state = {n.removeprefix("base_model."): t for n, t in export_irra(method).items()}
    torch.save(state | changes, path)
    return state


OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"width": 64, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
}


def test_a_clip_is_read_by_its_configuration(tmp_path):
    clip_file(tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP))
    method = released_to_run(tmp_path, tmp_path / "run").recipe.method
    assert isinstance(method, ClipConfig)
    assert method.image == VitConfig(
        height=32, width=32, patch=8, channels=64, depth=2, heads=1, activation="gelu",
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1),
    )  # fmt: skip
    assert method.text == TextConfig(channels=64, depth=1, heads=2, activation="gelu")
    assert method.embed_dim == 16


def test_an_unknown_activation_must_be_given(tmp_path):
    clip_file(tmp_path / "clip.bin")
    with pytest.raises(WeightsError, match=r"states which activation.*activation=gelu"):
        released_to_run(tmp_path / "clip.bin", tmp_path / "run")
    stated = [f"method.{side}.activation=gelu" for side in ("image", "text")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the recipe states it, so nothing is missing
        run = released_to_run(tmp_path / "clip.bin", tmp_path / "run", overrides=stated)
    assert run.recipe.method.image.activation == run.recipe.method.text.activation == "gelu"


def test_openais_archive_or_a_name_implies_quick_gelu(tmp_path):
    (tmp_path / "ViT-B-16-quickgelu").mkdir()
    named = tmp_path / "ViT-B-16-quickgelu" / "clip.bin"
    clip_file(named)
    assert released_to_run(named, tmp_path / "a").recipe.method.image.activation == "quick_gelu"
    extra = {n: torch.tensor(1) for n in ("input_resolution", "context_length", "vocab_size")}
    clip_file(tmp_path / "clip.pt", **extra)
    run = released_to_run(tmp_path / "clip.pt", tmp_path / "b").recipe
    assert run.method.text.activation == "quick_gelu"
    assert "pretrained CLIP" in run.evaluation_only


def test_a_clip_for_tall_pictures_is_converted(tmp_path):
    positions = {"visual.positional_embedding": torch.zeros(1 + 8, 64)}
    clip_file(tmp_path / "clip-quickgelu.bin", **positions)
    with pytest.raises(WeightsError, match=r"not those of a square picture.*--recipe"):
        released_to_run(tmp_path / "clip-quickgelu.bin", tmp_path / "run")


def test_a_clip_with_another_vocabulary_is_refused(tmp_path):
    words = {"token_embedding.weight": torch.zeros(300, 64)}
    clip_file(tmp_path / "clip-quickgelu.bin", **words)
    with pytest.raises(WeightsError, match=r"300 kinds of tokens.*no tokenizer"):
        released_to_run(tmp_path / "clip-quickgelu.bin", tmp_path / "run")


# --- from a run to a released layout -----------------------------------------------------


def test_runs_without_a_released_layout_are_refused(released, tmp_path):
    released_to_run(released, tmp_path / "run", recipe=recipe())
    with pytest.raises(CheckpointError, match=r"such as .*best\.pth, got a folder"):
        run_to_released(tmp_path / "run", tmp_path)
    with pytest.raises(FinegrainError, match="there is no recipe"):
        run_to_released(tmp_path, tmp_path / "best.pth")


# --- the command line --------------------------------------------------------------------


def test_the_command_converts_in_both_directions(released, tmp_path, capsys):
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
    assert "only with a released checkpoint" in capsys.readouterr().err


def test_a_missing_file_is_a_one_line_error(tmp_path, capsys):
    (tmp_path / "start.json").write_text(recipe().to_json())
    options = ["--recipe", str(tmp_path / "start.json"), "-o", str(tmp_path / "run")]
    assert main(["convert", str(tmp_path / "best.pth"), *options]) == 1
    assert "there is no weight file" in capsys.readouterr().err
