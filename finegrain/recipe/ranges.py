"""Checks of the numbers in a recipe."""

from __future__ import annotations

import math

from finegrain.errors import RecipeError


def check_range(part: object, least: float, most: float, *names: str) -> None:
    """Check fields of a part of a recipe. A field that is None passes.

    Raises:
        RecipeError: A number is below ``least`` or above ``most``.
    """
    for name in names:
        value = getattr(part, name)
        if value is not None and not least <= value <= most:
            limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise RecipeError(f"expected {name} {limits}, got {value!r:.60}")
