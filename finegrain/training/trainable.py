"""Which parameters a training changes: frozen ones, and low-rank updates."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from finegrain.errors import RecipeError
from finegrain.models.low_rank import add_low_rank
from finegrain.recipe import Lora, Recipe


def limit_training(model: nn.Module, recipe: Recipe) -> None:
    """Freeze parameters, and add low-rank updates, as the recipe says. The model is changed.

    Raises:
        RecipeError: A pattern names no parameter, or nothing is left to train.
    """
    for pattern in recipe.frozen:
        names = [name for name, _ in model.named_parameters() if fnmatchcase(name, pattern)]
        if not names:
            raise RecipeError(
                f"frozen names {pattern!r}, and no parameter is called so; names are such as "
                f"{next(iter(dict(model.named_parameters())))!r}"
            )
        for name in names:
            model.get_parameter(name).requires_grad_(False)
    if recipe.lora is not None:
        _train_low_rank_only(model, recipe.lora)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError("all parameters are frozen, so there is nothing to train")


def _train_low_rank_only(model: nn.Module, lora: Lora) -> None:
    """Freeze the towers, and give their matrices low-rank updates."""
    for name, parameter in model.named_parameters():
        if name.startswith(("image_tower.", "text_tower.")):
            parameter.requires_grad_(False)
    if not add_low_rank(model, lora.names, rank=lora.rank, alpha=lora.alpha):
        raise RecipeError(f"no matrix has a name like lora.names {', '.join(lora.names)}")
