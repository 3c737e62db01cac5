"""Recipes: how a model is trained, as one typed value."""

from finegrain.recipe.recipe import (
    Augment,
    Expected,
    Optimizer,
    ParameterRule,
    Precision,
    Recipe,
    Schedule,
    difference,
    load_recipe,
    override,
    recipe_from_dict,
)

__all__ = [
    "Augment",
    "Expected",
    "Optimizer",
    "ParameterRule",
    "Precision",
    "Recipe",
    "Schedule",
    "difference",
    "load_recipe",
    "override",
    "recipe_from_dict",
]
