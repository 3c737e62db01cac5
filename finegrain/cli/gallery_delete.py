"""The action ``finegrain gallery delete``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.records import printable

_NUM_SHOWN = 10


def add_delete_action(actions: Any) -> None:
    """Add ``delete`` to the actions of a parser."""
    delete = actions.add_parser(
        "delete",
        help="delete pictures from a gallery; their files stay",
        description="Delete pictures from a gallery after a confirmation. The files of the "
        "pictures stay, except those that finegrain unpacked from archives and tables. The exit "
        "status is 1 if nothing was deleted, or if nothing matches.",
    )
    delete.add_argument("gallery", help="file or address")
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("--where", metavar="FILTER", help="filter, as for query")
    which.add_argument("--ids", type=_ids, metavar="ID,ID,...", help="ids, as in results")
    delete.add_argument("--dry-run", action="store_true", help="only show what would be deleted")
    delete.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    delete.set_defaults(run=_delete)


def _ids(text: str) -> list[int]:
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected ids such as 3,4,5, got {text!r:.80}") from error


def _delete(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        ids = _matching(gallery, arguments)
        count = f"{len(ids)} picture{'s' * (len(ids) != 1)}"
        if arguments.dry_run or not arguments.yes:
            _show(gallery, ids)
        if arguments.dry_run:
            print(f"would delete {count}")
            return
        if not arguments.yes:
            _confirm(f"delete {count} from {gallery.path}?")
        # By id, so that only the pictures that were shown are deleted.
        print(f"deleted {gallery.delete(ids)} of {count}")


def _matching(gallery: Gallery, arguments: argparse.Namespace) -> list[int]:
    """Ids of the pictures to delete.

    Raises:
        GalleryError: There are none.
    """
    if arguments.where is not None:
        ids = gallery.ids_where(arguments.where)
        notes = gallery.notes_on(arguments.where)
        asked = repr(arguments.where)
    else:
        intact = {row.id for row in gallery.rows(arguments.ids)}
        ids = sorted(intact | gallery.damaged().intersection(arguments.ids))
        absent = sorted(set(arguments.ids) - set(ids))
        notes = [f"no picture has id {', '.join(map(str, absent[:_NUM_SHOWN]))}"] if absent else []
        if len(absent) > _NUM_SHOWN:
            notes[0] += f" or one of {len(absent) - _NUM_SHOWN} more"
        asked = "the ids"
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if not ids:
        raise GalleryError(f"no picture matches {asked:.200}")
    return ids


def _show(gallery: Gallery, ids: Sequence[int]) -> None:
    rows = {row.id: row for row in gallery.rows(ids[:_NUM_SHOWN])}
    for id_ in ids[:_NUM_SHOWN]:
        what = "(damaged)"
        if id_ in rows:
            what = printable(rows[id_].image or "(no file)")
        print(f"{id_:>8}  {what}")
    if len(ids) > _NUM_SHOWN:
        print(f"          and {len(ids) - _NUM_SHOWN} more")


def _confirm(question: str) -> None:
    """Ask the user.

    Raises:
        GalleryError: The user did not agree, or there is no terminal to ask on.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise GalleryError("nothing was deleted: there is no terminal to confirm on. Add --yes")
    sys.stdout.flush()
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise GalleryError("nothing was deleted")
