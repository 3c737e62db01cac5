"""Adds a verb to the command line, and parses arguments that several verbs take."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from finegrain.records import Scalar

Verbs = Any
"""The verbs of a parser; the type is private to argparse."""


def add_verb(
    verbs: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], None] | None,
    about: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a verb to a parser.

    Args:
        verbs: The verbs of the parser.
        name: Name of the verb.
        run: Runs the verb with its parsed arguments; None if the verb has actions that do.
        about: Description of the verb, the rest of a sentence.
        example: Examples for the help, indented by two spaces.
    """
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def named_value(text: str) -> tuple[str, Scalar]:
    """Parse a column and its value, which may be JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    if not isinstance(parsed, str | int | float | bool | None):
        raise argparse.ArgumentTypeError(f"{value!r} is not a text, a number or a truth value")
    return name, parsed
