"""YAML that released code wrote: plain values and tuples, and nothing that runs."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from finegrain.errors import WeightsError

MAX_BYTES = 1 << 16
"""A released file has some sixty short lines."""

MAX_DEPTH = 4

_TUPLE = "tag:yaml.org,2002:python/tuple"


class _Loader(yaml.SafeLoader):
    """Plain values, and tuples, which is what argparse's defaults are made of."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor(_TUPLE, _tuple)


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Read named values from YAML, without running anything in it.

    Raises:
        WeightsError: The file is missing or damaged, or names a Python object other than a
            tuple.
    """
    try:
        text = _read(path)
        _refuse_what_is_not_plain(text, path)
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader: it makes values and runs nothing
    except WeightsError:
        raise
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise WeightsError(f"expected named values in {path}, got {reprlib.repr(values)}")
    return values


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise WeightsError(f"expected a configs.yaml of at most {MAX_BYTES} bytes, got {path}")
    return text


def _refuse_what_is_not_plain(text: bytes, path: Path) -> None:
    """Look at the events before any value is made of them."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag not in (None, _TUPLE):
            raise WeightsError(
                f"{path} asks for {tag}; expected plain values and tuples. finegrain runs nothing "
                "that is in a file: delete the line, or write out its value"
            )
        # A reference to a reference and so on blows a small file up to any size.
        if isinstance(event, yaml.AliasEvent):
            raise WeightsError(f"{path} refers to *{event.anchor}; write out its value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise WeightsError(f"{path} is nested {depth} deep; expected a flat configs.yaml")
