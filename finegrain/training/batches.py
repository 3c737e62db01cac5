"""Operations of the training loop on a batch, independent of its fields."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor, device

from finegrain.methods import Batch


def advice_on(batch: Batch) -> str:
    """Advice for an error caused by a batch: its files, and what to change."""
    more = f" and {len(batch.where) - 8} more" if len(batch.where) > 8 else ""
    return (
        f"The batch was: {', '.join(batch.where[:8])}{more}. Look at these files, or lower the "
        "learning rate. Weights were not changed."
    )


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into ``count`` equal parts, in order."""

    def part(value: Any, i: int) -> Any:
        if value is None:
            return None
        size = len(value) // count
        return value[i * size : (i + 1) * size]

    return [Batch(**{name: part(value, i) for name, value in _fields(batch)}) for i in range(count)]


def moved(batch: Batch, to: device) -> Batch:
    """A copy of a batch with its tensors on a device."""
    tensors: dict[str, Any] = {
        name: value.to(to, non_blocking=True)
        for name, value in _fields(batch)
        if isinstance(value, Tensor)
    }
    return replace(batch, **tensors)


def _fields(batch: Batch) -> list[tuple[str, Any]]:
    return [(field.name, getattr(batch, field.name)) for field in fields(batch)]
