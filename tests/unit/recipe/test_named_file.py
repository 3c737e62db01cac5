from __future__ import annotations

import pytest

from finegrain import load_recipe
from finegrain.errors import ExportError, RecipeError
from finegrain.exporters import load_profile
from finegrain.recipe.named_file import find_file, named_files, shipped_folder

RECIPE = """
from dataclasses import replace
from finegrain import load_recipe

def recipe():
    return replace(load_recipe("irra_cuhk_pedes"), name={name!r})
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, name):
    path.parent.mkdir(exist_ok=True)
    path.write_text(RECIPE.format(name=name))
    return path


def test_shipped_recipes_and_profiles_have_names():
    assert load_recipe("irra_cuhk_pedes").name == "irra_cuhk_pedes"
    assert load_recipe("irra_cuhk_pedes.py", ["seed=3"]).seed == 3
    assert load_profile("cpu_int8").name == "cpu_int8"
    assert "README" not in named_files("recipes")


def test_paths_have_priority_over_own_recipes_and_those_over_shipped_ones(tmp_path):
    own = write(tmp_path / "recipes/tiny_synthetic.py", "own")
    new = write(tmp_path / "recipes/new.py", "new")
    assert load_recipe("tiny_synthetic").name == "own"
    assert load_recipe("new").name == "new"
    assert named_files("recipes")["new"].samefile(new)
    here = write(tmp_path / "tiny_synthetic.py", "here")
    assert load_recipe("tiny_synthetic.py").name == "here"
    assert find_file(here, "recipes") == here
    assert load_recipe(own).name == "own"


def test_a_run_folder_is_not_a_name(tmp_path):
    (tmp_path / "tiny_synthetic").mkdir()
    assert load_recipe("tiny_synthetic").name == "tiny_synthetic"
    json = load_recipe("irra_cuhk_pedes").to_json()
    (tmp_path / "tiny_synthetic/recipe.json").write_text(json)
    assert load_recipe("tiny_synthetic").name == "irra_cuhk_pedes"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("irra_cuhk", "recipe list.* Did you mean 'irra_cuhk_pedes'"),
        ("../irra_cuhk_pedes", "there is no recipe at"),
        ("sub/irra_cuhk_pedes", "there is no recipe at"),
        ("irra_cuhk_pedes.json", "there is no recipe at"),
        ("", "there is no recipe at"),
    ],
)
def test_unknown_recipe_names_are_refused(wrong, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(wrong)


def test_unknown_profile_names_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"cpu_int8, onnx_fp32.* Did you mean 'cpu_int8'"):
        load_profile("cpu_int")
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(ExportError, match=r"no export profile at profile\.json"):
        load_profile("profile.json")


def test_the_shipped_folder_of_a_wheel_is_inside_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("finegrain.recipe.named_file._PACKAGE", tmp_path / "finegrain")
    assert shipped_folder("recipes") == tmp_path / "recipes"
    (tmp_path / "finegrain/_recipes").mkdir(parents=True)
    assert shipped_folder("recipes") == tmp_path / "finegrain/_recipes"
