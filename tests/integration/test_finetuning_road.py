"""`finegrain train recipes/finetune_*.py` makes a plan from a published model and a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.published_clips import write_open_clip
from PIL import Image

import finegrain
from finegrain.cli.parser import main
from finegrain.errors import LicenceError, WeightsError
from finegrain.plan import Plan
from finegrain.recipe import load_recipe
from finegrain.runs.pretrained import is_published, with_published_towers

RECIPES = Path(__file__).parents[2] / "recipes"
REPOSITORY = "timm/vit_base_patch16_clip_224.openai"
COLOURS = ("red", "blue", "black", "white", "green", "yellow")


@pytest.fixture
def published(hub, tmp_path):
    """The repository of ``clip-vit-b16`` with a tiny model."""
    folder = tmp_path / "published"
    write_open_clip(folder, {}, length=77, dim=32, heads=1)
    return hub.add_folder(REPOSITORY, folder)


@pytest.fixture
def shop(tmp_path):
    """Sixty pictures with a table; each picture has one colour and its own size."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = ["image,caption,sku,split"]
    for number in range(60):
        colour = COLOURS[number % len(COLOURS)]
        Image.new("RGB", (40, 60 + number), colour).save(folder / f"{number}.jpg")
        split = "val" if number >= 48 else "train"
        rows.append(f"{number}.jpg,a {colour} dress,sku{number},{split}")
    (folder / "catalog.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.slow
def test_one_command_fine_tunes_on_a_catalogue(published, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = [f"data.root={shop}", "data.pid_column=sku", "data.split_column=split",
                "schedule.epochs=2", "batch_size=16", "lora={}", "optimizer.lr=1e-3"]  # fmt: skip
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert main(["train", str(RECIPES / "finetune_catalog.py"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "starting weights" in shown
    assert "best checkpoint, step" in shown
    run = Path("runs/finetune_catalog")
    assert Image.open(run / "curves.png").size[0] > 1000
    recipe = load_recipe(run)
    assert recipe.weights == "clip-vit-b16"
    assert recipe.method.image.height == 32  # the towers are those of the published model
    with finegrain.Searcher(run / "model.plan") as searcher:
        searcher.add(shop, progress=False)
        assert len(searcher.query("a red dress", k=5)) == 5
    assert Plan(run / "model.plan").manifest.embed_dim == 32


def test_pictures_of_people_are_padded_and_share_pids(published):
    recipe, _ = with_published_towers(load_recipe(RECIPES / "finetune_people.py"))
    assert (recipe.fit, recipe.method.image.width) == ("pad", 32)
    assert recipe.data.pid_column == "pid"


def test_a_folder_with_a_model_gives_its_towers(tmp_path):
    write_open_clip(tmp_path, {}, length=77, dim=32, heads=1)
    recipe = load_recipe(RECIPES / "finetune_people.py")
    with_towers, file = with_published_towers(replace(recipe, weights=str(tmp_path)))
    assert with_towers.method.image.width == 32
    assert file is not None
    assert file.parent == tmp_path
    from_file = replace(recipe, weights=str(file))
    assert with_published_towers(from_file) == (from_file, None)


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    recipe = replace(load_recipe(RECIPES / "finetune_people.py"), weights=str(tmp_path))
    with pytest.raises(WeightsError, match="has neither"):
        with_published_towers(recipe)


def test_a_licence_must_be_accepted_first(published):
    published.licence = "other"
    with pytest.raises(LicenceError, match=r"--set weights=FOLDER"):
        with_published_towers(load_recipe(RECIPES / "finetune_catalog.py"))


def test_a_folder_with_the_name_of_a_model_has_priority(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_published("clip-vit-b16")
    (tmp_path / "clip-vit-b16").mkdir()
    assert not is_published("clip-vit-b16")
