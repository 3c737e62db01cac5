"""A repeated demo reuses the results of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finegrain import load_recipe
from finegrain.cli import demo
from finegrain.data.datasets import SyntheticPeople
from finegrain.encoder import Encoder
from finegrain.errors import RecipeError
from finegrain.preprocess import ImageTransform
from finegrain.runs.checkpoint import State, save_checkpoint

ROOT = Path(__file__).parents[3]


class Means:
    """A runtime whose embedding of a picture is its mean colour."""

    embed_dim = 3
    encoded = 0

    def encode_images(self, pixels):
        self.encoded += len(pixels)
        return pixels.mean(axis=(2, 3), dtype=np.float32)


@pytest.fixture
def recipe(tmp_path):
    recipe = load_recipe(ROOT / "recipes" / "tiny_synthetic.py").tiny()
    people = SyntheticPeople(root=str(tmp_path / "people"), train=8, val=1, test=1)
    return replace(recipe, data=people)


def run_of(recipe, folder, step):
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(recipe.to_json())
    model = torch.nn.Linear(2, 2)
    save_checkpoint(folder, State(step=step), model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_each_picture_is_encoded_once(tmp_path):
    draw = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (8, 4, 3), np.uint8)).save(path)
    transform = ImageTransform(height=8, width=4)
    expected = Encoder(Means(), None, transform).encode_images(paths)
    encoder = demo._RememberingEncoder(Means(), None, transform)
    for rows in ([0, 1], [1, 0, 1, 2], [2]):
        asked = [paths[i] for i in rows]
        np.testing.assert_array_equal(encoder.encode_images(asked), expected[rows])
    assert encoder.runtime.encoded == 3


def test_a_run_of_another_recipe_is_renamed_and_kept(recipe, tmp_path, capsys):
    folder = tmp_path / recipe.name
    run_of(replace(recipe, batch_size=2), folder, 3)
    assert demo._run_folder(tmp_path, recipe) == folder
    assert not folder.exists()
    assert (tmp_path / f"{recipe.name}.1" / "recipe.json").is_file()
    assert "another recipe" in capsys.readouterr().out
    run_of(recipe, folder, 3)
    assert demo._run_folder(tmp_path, recipe) == folder
    assert folder.exists()


def test_finished_stages_are_not_in_the_remaining_time(recipe, tmp_path):
    folder = tmp_path / recipe.name
    assert demo._done_before(recipe, folder) == {"draw people": 0.0, "train": 0.0}
    run_of(recipe, folder, 2)
    pictures = Path(recipe.data.root) / "imgs" / "cam_1"
    pictures.mkdir(parents=True)
    for number in range(10):
        (pictures / f"{number}.jpg").touch()
    # 10 people of 4 pictures; 32 of them in batches of 8, for one epoch
    assert demo._done_before(recipe, folder) == {"draw people": 0.25, "train": 0.5}


def test_a_recipe_on_other_data_is_refused(recipe):
    with pytest.raises(RecipeError, match=r"SyntheticPeople.*got irra_cuhk_pedes with CuhkPedes"):
        demo._shortened(load_recipe("irra_cuhk_pedes"))
    assert demo._shortened(recipe).data.train == 600


def test_every_stage_has_a_reference(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert tuple(demo._reference(fast=False)) == demo.STAGES
    assert all(seconds > 0 for seconds in demo._reference(fast=True).values())
