"""Absurd values of every field of every recipe are an error that names the field, or can be built.

A value that the recipe accepts must not fail in a library when the model is built from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import FinegrainError, RecipeError
from finegrain.recipe import Recipe, load_recipe, override
from finegrain.recipe.named_file import named_files
from finegrain.recipe.ranges import RANGES
from finegrain.runs.model_size import check_model_size

VALUES = (
    *("-1", "-0.5", "0", "0.5", "1", "3", "1000000000000000000", "1e300", "NaN", "-Infinity"),
    *("", "abc", "null", "true", "[]", "[1]", "[-1, 0]", "{}", '{"a": 1}'),
)
NAMES = sorted(named_files("recipes"))
READABLE = ("expected", "no such field", "wrong", "missing")
UNREADABLE = ("unknown error", "invalid value", "typing.", "object has no attribute", "Traceback")


def fields_of(part: Any, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Dotted name of each field, also of those that hold further fields, and its class."""
    for field in dataclasses.fields(part):
        name, value = f"{prefix}{field.name}", getattr(part, field.name)
        yield name, type(part)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{name}.")
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", Mapping) for key in value)


def outcome(recipe: Recipe, name: str, value: str) -> Recipe | None:
    """The recipe with the value; None if it is refused in a way that a reader understands."""
    try:
        return override(recipe, [f"{name}={value}"])
    except FinegrainError as error:
        message = str(error)
        assert any(word in message for word in READABLE), message
        assert not any(word in message for word in UNREADABLE), message
        parts = name.split(".")
        # What does not fit another field is an error of the part that has both.
        places = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        assert any(place in message for place in (*places, parts[-1], value)), message
        return None


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {name: load_recipe(name) for name in NAMES}


def test_every_field_of_every_recipe_refuses_absurd_values_readably(recipes):
    tried = set()
    for recipe in recipes.values():
        for name, owner in fields_of(recipe):
            field = (owner, name.rpartition(".")[2])
            if field not in tried:
                for value in VALUES:
                    outcome(recipe, name, value)
                tried.add(field)
    assert len(tried) > 150


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_a_recipe_accepts_can_be_built_or_is_refused(recipes, data):
    recipe = recipes[data.draw(st.sampled_from(NAMES))].tiny()
    fields = [name for name, _ in fields_of(recipe) if name.startswith(("method", "losses"))]
    accepted = recipe
    for _ in range(data.draw(st.integers(1, 2))):
        name, value = data.draw(st.sampled_from(fields)), data.draw(st.sampled_from(VALUES))
        accepted = outcome(accepted, name, value) or accepted
    with contextlib.suppress(FinegrainError):
        check_model_size(lambda: accepted.method.build(accepted.losses))


def classes_of(kind: Any) -> Iterator[type]:
    """The dataclasses that are reachable from the fields of one."""
    for inner in typing.get_args(kind):
        yield from classes_of(inner)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
        for name, inner in typing.get_type_hints(kind).items():
            if name in {field.name for field in dataclasses.fields(kind)}:
                yield from classes_of(inner)


def test_every_number_of_a_recipe_has_a_range():
    def is_number(kind: Any) -> bool:
        inner = [part for part in typing.get_args(kind) if part is not str]
        return kind in (int, float) or any(map(is_number, inner))

    numbers = {
        field
        for kind in set(classes_of(Recipe))
        for field, hint in typing.get_type_hints(kind).items()
        if is_number(hint) and field in {f.name for f in dataclasses.fields(kind)}
    }
    assert {"lr", "batch_size", "channels", "train", "losses"} <= numbers
    assert numbers == {name.rpartition(".")[2] for name in RANGES}


def test_all_recipes_are_within_the_ranges(recipes):
    assert len(recipes) > 10
    with pytest.raises(RecipeError, match=r"expected schedule.warmup from 0 to 1, got 2\.0"):
        override(recipes["irra_cuhk_pedes"], ["schedule.warmup=2"])
