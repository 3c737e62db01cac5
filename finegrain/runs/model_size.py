"""Check of the size of a model before its memory is allocated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import nn

from finegrain.errors import RecipeError

MAX_BYTES = 1 << 35
"""Maximum size of the parameters and buffers of a model, in bytes."""


def check_model_size(build: Callable[[], nn.Module]) -> None:
    """Build a model on PyTorch's ``meta`` device, without allocating memory, and check its size.

    Args:
        build: Builds the model of a recipe, whose numbers are within their ranges.

    Raises:
        RecipeError: Fields do not fit each other, or the model would be larger than
            :data:`MAX_BYTES`.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build()
    except NotImplementedError:  # building this model reads values of tensors
        return
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError) as error:
        if isinstance(error, RecipeError):
            raise
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"the method of the recipe cannot be built: {reason:.200}") from error
    size = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
    if size > MAX_BYTES:
        raise RecipeError(
            f"the method of the recipe has {size / 1e9:,.0f} GB of parameters, more than "
            f"{MAX_BYTES / 1e9:,.0f}; check its sizes"
        )
