"""The verb ``gallery``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finegrain.cli.gallery_care import add_care_actions
from finegrain.cli.gallery_delete import add_delete_action
from finegrain.cli.verb import Verbs, add_verb, named_value
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.records import printable


def add_gallery_verb(verbs: Verbs) -> None:
    """Add ``finegrain gallery ACTION`` to the verbs of a parser."""
    gallery = add_verb(
        verbs,
        "gallery",
        None,
        "back up, restore, check and measure a gallery, and change or delete its pictures",
        "  finegrain gallery set model.gallery reviewed=true --where \"camera = 'gate-3'\"\n"
        "  finegrain gallery move model.gallery /old/crops /new/crops\n"
        "  finegrain gallery delete model.gallery --where \"camera = 'gate-3'\" --dry-run\n"
        "  finegrain gallery backup model.gallery /backups/model.gallery\n"
        "  finegrain gallery restore /backups/model.gallery model.gallery --overwrite\n"
        "  finegrain gallery check model.gallery\n"
        "  finegrain gallery correct-hubs model.plan\n"
        "  finegrain gallery stats model.gallery",
    )
    actions = gallery.add_subparsers(metavar="ACTION", required=True)
    change = actions.add_parser("set", help="set columns of the pictures that match a filter")
    change.add_argument("gallery", help="file or address")
    change.add_argument(
        "columns", type=named_value, nargs="+", metavar="NAME=VALUE", help="null removes a value"
    )
    change.add_argument("--where", required=True, help="filter, as for query")
    change.set_defaults(run=_set)
    move = actions.add_parser(
        "move", help="change the paths of pictures whose folder or file has moved"
    )
    move.add_argument("gallery", help="file or address")
    move.add_argument("old", type=Path, help="old path")
    move.add_argument("new", type=Path, help="new path")
    move.set_defaults(run=_move)
    add_delete_action(actions)
    add_care_actions(actions)


def _set(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        count = gallery.update(arguments.where, dict(arguments.columns))
        notes = gallery.notes_on(arguments.where) if not count else []
    names = printable(", ".join(name for name, _ in arguments.columns))
    print(f"set {names} of {count} pictures")
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if not count:
        raise GalleryError(f"no picture matches {arguments.where!r:.200}")


def _move(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        print(f"moved {gallery.move(arguments.old, arguments.new)} pictures")
