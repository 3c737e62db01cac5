"""A recipe with sizes that no model has is refused before memory is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.recipe import Recipe
from finegrain.runs.run import assemble


def with_image(recipe: Recipe, **sizes: int) -> Recipe:
    method = recipe.method
    return replace(recipe, method=replace(method, image=replace(method.image, **sizes)))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"height": 10**30}, "expected method.image.height from 1 to 16384"),
        ({"height": 10**400}, "expected method.image.height from 1 to 16384"),
        ({"depth": 10**7}, "expected method.image.depth from 1 to 1024"),
        ({"channels": 2**24, "heads": 2}, "GB of parameters"),
        ({"channels": 2**24, "heads": 1}, "GB of parameters"),
        ({"heads": 3}, "cannot be built: width 32 is not a multiple of the 3 heads"),
        ({"heads": 0}, "expected method.image.heads from 1"),
        ({"channels": -4}, "expected method.image.channels of at least 1"),
    ],
)
def test_absurd_sizes_are_refused(tiny_recipe: Recipe, sizes: dict[str, int], message: str):
    with pytest.raises(RecipeError, match=message):
        assemble(with_image(tiny_recipe, **sizes))


def test_the_check_draws_no_random_numbers(tiny_recipe: Recipe):
    torch.manual_seed(0)
    checked = assemble(tiny_recipe).state_dict()
    torch.manual_seed(0)
    plain = tiny_recipe.method.build().state_dict()
    assert checked.keys() == plain.keys()
    assert all(torch.equal(checked[name], plain[name]) for name in plain)
