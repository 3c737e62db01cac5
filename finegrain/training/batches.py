"""What the training loop does with a batch, whatever fields a method gave it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor, device

from finegrain.methods import Batch


def advice_on(batch: Batch) -> str:
    """What to look at when a batch does harm."""
    more = f" and {len(batch.where) - 8} more" if len(batch.where) > 8 else ""
    return (
        f"The batch was: {', '.join(batch.where[:8])}{more}. Look at these files, or lower the "
        "learning rate. Weights were not changed."
    )


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into equal parts, in order."""

    def part(value: Any, i: int) -> Any:
        size = 0 if value is None else len(value) // count
        return None if value is None else value[i * size : (i + 1) * size]

    return [Batch(**{name: part(value, i) for name, value in _fields(batch)}) for i in range(count)]


def moved(batch: Batch, to: device) -> Batch:
    tensors: dict[str, Any] = {
        name: value.to(to, non_blocking=True)
        for name, value in _fields(batch)
        if isinstance(value, Tensor)
    }
    return replace(batch, **tensors)


def _fields(batch: Batch) -> list[tuple[str, Any]]:
    return [(field.name, getattr(batch, field.name)) for field in fields(batch)]
