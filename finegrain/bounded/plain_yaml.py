"""Reads YAML files of plain values; nothing in a file is run as code."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from finegrain.bounded.file import read_bounded
from finegrain.errors import FinegrainError

MAX_BYTES = 1 << 16
"""Maximum size of a file; released files have about sixty short lines."""

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


def read_plain_yaml(path: Path, failure: type[FinegrainError], *, max_depth: int) -> dict[str, Any]:
    """Read named values.

    Args:
        path: The file.
        failure: The class of the error.
        max_depth: How deep lists and names may be nested.

    Raises:
        FinegrainError: The file is missing, damaged or too large, is nested deeper, or has a tag
            of a Python object other than a tuple.
    """
    text = read_bounded(path, MAX_BYTES, failure)
    try:
        _refuse_what_is_not_plain(text, path, failure, max_depth)
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader: it creates values only
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, FinegrainError):
            raise
        raise failure(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise failure(f"expected named values in {path}, got {reprlib.repr(values)}")
    return values


def _refuse_what_is_not_plain(
    text: bytes, path: Path, failure: type[FinegrainError], max_depth: int
) -> None:
    """Check all parser events before any value is created."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag not in (None, _TUPLE):
            raise failure(
                f"{path} asks for {tag}; expected plain values and tuples. finegrain does not run "
                "code from files: delete the line, or write its value"
            )
        # Nested references could expand a small file to any size.
        if isinstance(event, yaml.AliasEvent):
            raise failure(f"{path} refers to *{event.anchor}; write its value instead")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > max_depth:
            raise failure(f"{path} is nested {depth} deep; expected at most {max_depth}")
