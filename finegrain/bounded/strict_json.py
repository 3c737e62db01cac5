"""Reads JSON that has the same meaning for each reader.

``json`` takes the last of two values with one name, and reads ``NaN`` and ``1e999``. Another reader
of the same file may refuse them or see other values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

MAX_DEPTH = 32
"""Maximum number of objects and lists inside each other."""


def parse_strict(text: bytes) -> Any:
    """Parse JSON without repeated names, NaN and infinite numbers.

    Raises:
        ValueError: The text is not such JSON, or is nested deeper than :data:`MAX_DEPTH`.
        RecursionError: The text is nested far deeper.

    Example:
        >>> parse_strict(b'{"width": 1, "width": 2}')
        Traceback (most recent call last):
        ValueError: expected each name once, got 'width' twice
    """
    values = json.loads(
        text, object_pairs_hook=_without_duplicates, parse_float=_finite, parse_constant=_finite
    )
    level = [values]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
    if level:
        raise ValueError(f"expected at most {MAX_DEPTH} levels, got more")
    return values


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(a for a, b in pairwise(names) if a == b)
        raise ValueError(f"expected each name once, got {twice!r:.60} twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text:.60}")
    return value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
