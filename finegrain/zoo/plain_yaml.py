"""Safe reading of YAML files of released code: plain values and tuples only."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from finegrain.errors import WeightsError

MAX_BYTES = 1 << 16
"""Maximum size of a file; released files have about sixty short lines."""

MAX_DEPTH = 4

_TUPLE = "tag:yaml.org,2002:python/tuple"


class _Loader(yaml.SafeLoader):
    """Loads plain values and tuples, the types of argparse's defaults; each name only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(values) != len(node.value):
            names = [name.value for name, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), names)
            raise ValueError(f"expected each name once, got {twice!r:.60} twice")
        return values


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor(_TUPLE, _tuple)


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Read named values from YAML without running code from it.

    Raises:
        WeightsError: The file is missing, damaged or too large, or has a tag of a Python object
            other than a tuple.
    """
    try:
        text = _read(path)
        _refuse_what_is_not_plain(text, path)
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader: it creates values only
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
    """Check all parser events before any value is created."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag not in (None, _TUPLE):
            raise WeightsError(
                f"{path} asks for {tag}; expected plain values and tuples. finegrain does not run "
                "code from files: delete the line, or write its value"
            )
        # Nested references could expand a small file to any size.
        if isinstance(event, yaml.AliasEvent):
            raise WeightsError(f"{path} refers to *{event.anchor}; write its value instead")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise WeightsError(f"{path} is nested {depth} deep; expected a flat configs.yaml")
