"""Recipes: complete descriptions of how a model is trained."""

from finegrain.recipe.recipe import (
    Augment,
    Expected,
    Lora,
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
    "Lora",
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
