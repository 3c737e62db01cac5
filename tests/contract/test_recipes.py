"""Every committed recipe and export profile loads and resolves to its golden JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finegrain import ExportProfile, Recipe, load_recipe
from finegrain.exporters import load_profile
from finegrain.recipe import recipe_from_dict

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
PROFILES = sorted((ROOT / "export").glob("*.py"))


def name_of(path: Path) -> str:
    return path.stem


def test_there_are_recipes_and_profiles():
    assert RECIPES
    assert PROFILES


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_has_the_name_of_its_file_and_a_description(path):
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    assert recipe.name == path.stem
    assert 0 < len(recipe.about) <= 100


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_is_equal_after_a_round_trip_through_json(path, tmp_path):
    recipe = load_recipe(path)
    assert recipe_from_dict(json.loads(recipe.to_json()), "its JSON") == recipe
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert load_recipe(tmp_path) == load_recipe(tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_resolved_recipe_equals_its_golden_json(path, golden):
    """A changed default would otherwise silently change every run that uses it."""
    golden(f"recipes/{path.stem}.json", load_recipe(path).to_json())


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_has_a_tiny_form(path):
    tiny = load_recipe(path).tiny()
    assert tiny.schedule.steps is not None
    assert tiny.schedule.steps <= 20
    assert tiny.weights is None
    assert tiny.expected is None
    assert recipe_from_dict(tiny.to_dict(), "its twin") == tiny


def test_every_golden_recipe_has_a_recipe_file():
    committed = {path.stem for path in (ROOT / "tests" / "golden" / "recipes").glob("*.json")}
    assert committed == {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", PROFILES, ids=name_of)
def test_a_profile_has_the_name_of_its_file(path):
    profile = load_profile(path)
    assert isinstance(profile, ExportProfile)
    assert profile.name == path.stem
