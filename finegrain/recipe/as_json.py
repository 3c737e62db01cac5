"""Recipes as JSON: strict types, unions with a ``type`` field, and readable error messages."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, cast, get_args, get_origin

import cattrs
import cattrs.v
from cattrs.disambiguators import create_default_dis_func
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from finegrain.data.datasets import Dataset
from finegrain.errors import RecipeError, did_you_mean
from finegrain.methods import MethodConfig
from finegrain.models import ImageConfig

_INT64 = range(-(2**63), 2**63)


def explain(error: BaseException, wanted: type | None) -> str:
    """Describe an error in one field, with finegrain's own message where there is one."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = [f.name for f in fields(error.cl)]
        wrong = sorted(error.extra_fields)
        questions = "".join(did_you_mean(name, known) for name in wrong)
        return (
            f"{error.cl.__name__} has the fields {', '.join(known)}.{questions} "
            f"extra fields found ({', '.join(wrong)})"
        )
    ours = isinstance(error, RecipeError) or str(error).startswith("expected ")
    return str(error) if ours else cattrs.v.format_exception(error, wanted)


def _strict(kinds: tuple[type, ...]) -> Any:
    """A hook that rejects values which Python would convert silently, such as "3" or True to 3.

    Numbers must be finite and of 64 bits, which NumPy and PyTorch can hold.
    """

    def structure(value: Any, wanted: type) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"expected {wanted.__name__}, got {value!r:.60}")
        if isinstance(value, int) and value not in _INT64:
            raise TypeError(f"expected a number of at most 64 bits, got {reprlib.repr(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise TypeError(f"expected a finite number, got {value}")
        return wanted(value)

    return structure


def _structure_by_type(converter: cattrs.Converter, union: Any, example: str) -> None:
    """Select the class of a union by the field ``type`` of the JSON object.

    Args:
        converter: The converter to register the hook with.
        union: The classes.
        example: An example of the JSON object, for error messages.
    """
    configure_tagged_union(union, converter, tag_name="type")
    structure_known = converter.get_structure_hook(union)
    types = tuple(member.__name__ for member in get_args(union))

    def structure(value: Any, wanted: Any) -> Any:
        if isinstance(value, str) and value in types:
            raise TypeError(f'expected fields such as {{"type": "{value}", ...}}, got {value!r}')
        named = value.get("type") if isinstance(value, Mapping) else None
        if named not in types:
            got = value if named is None else named
            question = did_you_mean(str(got), types).strip()
            raise TypeError(
                f"expected a value such as {example}{f' ({question})' if question else ''}, of "
                f"type {' or '.join(types)}, got {got!r:.60}"
            )
        return structure_known(value, wanted)

    converter.register_structure_hook(union, structure)


def _is_a(form: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is form


def _structure_choice(value: Any, wanted: Any) -> Any:
    choices = get_args(wanted)
    if value not in choices or type(value) is not type(choices[0]):
        names = " or ".join(map(repr, choices))
        question = did_you_mean(str(value), map(str, choices))
        raise TypeError(f"expected {names}, got {value!r:.60}{'.' if question else ''}{question}")
    return value


def _structure_fields(converter: cattrs.Converter, wanted: Any) -> Callable[[Any, Any], Any]:
    """A hook for a dataclass that says which fields it has."""
    structure = make_dict_structure_fn(wanted, converter, _cattrs_forbid_extra_keys=True)

    def checked(value: Any, wanted: Any) -> Any:
        if not isinstance(value, Mapping):
            names = ", ".join(field.name for field in fields(wanted))
            raise TypeError(f"expected an object with the fields {names}, got {value!r:.60}")
        return structure(value, wanted)

    return checked


def _structure_either(converter: cattrs.Converter, union: Any) -> Callable[[Any, Any], Any]:
    """A hook for a union whose classes differ in their fields."""
    class_of = create_default_dis_func(converter, *get_args(union))
    names = " or of ".join(kind.__name__ for kind in get_args(union))

    def structure(value: Any, _: Any) -> Any:
        try:
            chosen = class_of(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"expected the fields of {names}, got {value!r:.60}") from error
        return converter.structure(value, cast(Any, chosen))

    return structure


def _structure_tuples(converter: cattrs.Converter) -> None:
    """Accept lists alone: a text would become the list of its characters."""
    structure = converter.get_structure_hook(tuple[int, ...], cache_result=False)

    def checked(value: Any, wanted: Any) -> Any:
        kinds = get_args(wanted)
        is_any_length = kinds[-1] is ...
        if not isinstance(value, list | tuple) or not (is_any_length or len(value) == len(kinds)):
            count = "" if is_any_length else f" of {len(kinds)} values"
            example = '["a"]' if kinds[0] is str else "[1, 2]"
            raise TypeError(f"expected a list{count} such as {example}, got {value!r:.60}")
        return structure(value, wanted)

    converter.register_structure_hook_func(_is_a(tuple), checked)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook_func(_is_a(Literal), _structure_choice)
    converter.register_structure_hook_factory(
        lambda kind: isinstance(kind, type) and is_dataclass(kind),
        lambda kind: _structure_fields(converter, kind),
    )
    converter.register_structure_hook_factory(
        lambda kind: (
            _is_a(UnionType)(kind)
            and kind not in (Dataset, ImageConfig, MethodConfig)
            and all(map(is_dataclass, get_args(kind)))
        ),
        lambda kind: _structure_either(converter, kind),
    )
    _structure_tuples(converter)
    for wanted, kinds in ((bool, (bool,)), (int, (int,)), (str, (str,)), (float, (float, int))):
        converter.register_structure_hook(wanted, _strict(kinds))
    _structure_by_type(converter, Dataset, '{"type": "Catalog", "table": "catalog.csv"}')
    for union in (ImageConfig, MethodConfig):
        _structure_by_type(converter, union, f'{{"type": "{get_args(union)[0].__name__}", ...}}')
    return converter


CONVERTER = _make_converter()
"""Converts between recipes and JSON objects."""
