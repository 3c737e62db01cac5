"""Reading of the JSON files next to published weights, with checks of types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finegrain.bounded.file import read_bounded
from finegrain.bounded.strict_json import parse_strict
from finegrain.errors import FinegrainError, WeightsError

MAX_BYTES = 1 << 20

MAX_NUMBER = 1 << 24
"""Largest whole number of a configuration; vocabularies have up to a million entries."""


def read_json(file: Path, failure: type[FinegrainError] = WeightsError) -> dict[str, Any]:
    """Read a JSON object in which each name is once and each number is finite.

    Args:
        file: The file.
        failure: The class of the error if the file cannot be read, is larger than
            :data:`MAX_BYTES`, or holds another value.
    """
    text = read_bounded(file, MAX_BYTES, failure)
    try:
        values = parse_strict(text)
    except (ValueError, RecursionError) as error:
        raise failure(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise failure(f"expected an object as the JSON of {file}, got {values!r:.60}")
    return values


def part(values: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    part = values.get(name)
    if not isinstance(part, dict):
        raise WeightsError(f"expected {name} as an object in {file}, got {part!r:.60}")
    return part


def whole(value: Any, file: Path) -> int:
    if type(value) is not int or not 1 <= value <= MAX_NUMBER:
        raise WeightsError(
            f"expected a whole number from 1 to {MAX_NUMBER:,} in {file}, got {value!r:.60}"
        )
    return value


def size(value: Any, file: Path) -> tuple[int, int]:
    height, width = value if isinstance(value, list) and len(value) == 2 else (value, value)
    return whole(height, file), whole(width, file)


def choice(settings: Mapping[str, Any], name: str, known: Mapping[Any, Any], file: Path) -> Any:
    """Translate a value of the file to finegrain's name; None if the file has no such value.

    Raises:
        WeightsError: finegrain does not support this way of resizing.
    """
    value = settings.get(name)
    if value is None:
        return None
    if not isinstance(value, str | int) or value not in known:
        raise WeightsError(
            f"{file} says {name} = {value!r:.60}, and finegrain resizes pictures for it only by "
            f"{', '.join(map(repr, known))}: give a recipe by --recipe"
        )
    return known[value]


def normalisation(settings: Mapping[str, Any], mean: str, std: str, file: Path) -> dict[str, Any]:
    fields = {"mean": settings.get(mean), "std": settings.get(std)}
    for name, values in fields.items():
        if values is None:
            continue
        least = 0.0 if name == "mean" else 1e-6
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(type(v) in (int, float) and least <= v <= 1 for v in values)
        ):
            raise WeightsError(
                f"expected {name} as three numbers from {least} to 1 in {file}, got {values!r:.60}"
            )
        fields[name] = tuple(map(float, values))
    return fields


def number(value: Any, file: Path) -> float:
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise WeightsError(f"expected a number above 0 in {file}, got {value!r:.60}")
    return float(value)


def only(settings: Mapping[str, Any], supported: Mapping[str, Any], where: str) -> None:
    """Check settings for which finegrain supports one value only.

    Raises:
        WeightsError: A setting has another value.
    """
    for name, expected in supported.items():
        # An empty table of arguments equals the default.
        if settings.get(name, expected) not in (expected, {}):
            raise WeightsError(
                f"{where}.{name} = {settings[name]!r:.60}, and finegrain supports {expected!r} "
                "only; this model cannot be loaded"
            )
