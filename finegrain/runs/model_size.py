"""Check of the size of a model before its memory is allocated."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import chain

import torch
from torch import nn

from finegrain.errors import RecipeError

MAX_BYTES = 1 << 35
"""Maximum size of the parameters and buffers of a model, in bytes."""

MAX_NUMBER = 1 << 24
MAX_DEPTH = 1 << 10


def check_model_size(config: object, build: Callable[[], nn.Module]) -> None:
    """Build a model on PyTorch's ``meta`` device, without allocating memory, and check its size.

    Args:
        config: The configuration of a method.
        build: Builds the model of this configuration.

    Raises:
        RecipeError: A number is too large, fields do not fit each other, or the model would be
            larger than :data:`MAX_BYTES`.
    """
    for name, number in _whole_numbers(config, "method"):
        most = MAX_DEPTH if name.endswith("depth") else MAX_NUMBER
        if abs(number) > most:
            raise RecipeError(f"{name}: expected at most {most:,}, got {reprlib.repr(number)}")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build()
    except NotImplementedError:  # building this model reads values of tensors
        return
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
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


def _whole_numbers(config: object, name: str) -> Iterator[tuple[str, int]]:
    """The integers of a configuration, with their dotted names."""
    if type(config) is int:
        yield name, config
    elif is_dataclass(config):
        for field in fields(config):
            yield from _whole_numbers(getattr(config, field.name), f"{name}.{field.name}")
