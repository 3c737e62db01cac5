"""Defines the verb ``gallery`` of the command line, and a type of arguments for several verbs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from finegrain.cli import commands as verbs
from finegrain.cli.gallery_care import add_care_actions
from finegrain.cli.gallery_delete import add_delete_action
from finegrain.records import Scalar


def add_gallery_verb(to: Any) -> None:
    """Add ``finegrain gallery ACTION`` to the verbs of a parser."""
    about = "back up, restore and check a gallery, and change or delete its pictures"
    gallery = to.add_parser(
        "gallery",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog="examples:\n"
        "  finegrain gallery set model.gallery reviewed=true --where \"camera = 'gate-3'\"\n"
        "  finegrain gallery move model.gallery /old/crops /new/crops\n"
        "  finegrain gallery delete model.gallery --where \"camera = 'gate-3'\" --dry-run\n"
        "  finegrain gallery backup model.gallery /backups/model.gallery\n"
        "  finegrain gallery restore /backups/model.gallery model.gallery --overwrite\n"
        "  finegrain gallery check model.gallery",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = gallery.add_subparsers(metavar="ACTION", required=True)
    change = actions.add_parser("set", help="set columns of the pictures that match a filter")
    change.add_argument("gallery", help="file or address")
    change.add_argument(
        "columns", type=named_value, nargs="+", metavar="NAME=VALUE", help="null removes a value"
    )
    change.add_argument("--where", required=True, help="filter, as for query")
    change.set_defaults(run=verbs.gallery_set)
    move = actions.add_parser(
        "move", help="change the paths of pictures whose folder or file has moved"
    )
    move.add_argument("gallery", help="file or address")
    move.add_argument("old", type=Path, help="old path")
    move.add_argument("new", type=Path, help="new path")
    move.set_defaults(run=verbs.gallery_move)
    add_delete_action(actions)
    add_care_actions(actions)


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
