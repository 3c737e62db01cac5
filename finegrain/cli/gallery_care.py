"""The actions of ``finegrain gallery`` that protect a gallery."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.cli.json_output import printable_json
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.plan import Plan
from finegrain.records import printable
from finegrain.search.hubs import correct_hubs, correction_of
from finegrain.search.retriever import gallery_path


def add_care_actions(actions: Any) -> None:
    """Add the actions of this module to a parser."""
    backup = actions.add_parser("backup", help="copy a gallery, even while it is in use")
    backup.add_argument("gallery", type=Path)
    backup.add_argument("copy", type=Path)
    backup.add_argument("--overwrite", action="store_true", help="replace an existing copy")
    backup.set_defaults(run=_backup)
    restore = actions.add_parser("restore", help="restore a gallery from a copy")
    restore.add_argument("copy", type=Path)
    restore.add_argument("gallery", type=Path)
    restore.add_argument("--overwrite", action="store_true", help="replace an existing gallery")
    restore.set_defaults(run=_restore)
    check = actions.add_parser("check", help="read a whole gallery and check it for damage")
    check.add_argument("gallery", type=Path)
    check.set_defaults(run=_check)
    stats = actions.add_parser("stats", help="show numbers of pictures, memory, bytes on disk")
    stats.add_argument("gallery", type=Path)
    stats.add_argument(
        "--load", action="store_true",
        help="fill the index first, as the first search does, to measure its memory",
    )  # fmt: skip
    stats.add_argument("--json", action="store_true", help="print JSON")
    stats.set_defaults(run=_stats)
    compact = actions.add_parser("compact", help="remove the places of deleted vectors from a file")
    compact.add_argument("gallery", type=Path)
    compact.set_defaults(run=_compact)
    correct = actions.add_parser(
        "correct-hubs", help="compute the hub correction of pictures that lack that of a plan"
    )
    correct.add_argument("plan", type=Path)
    correct.add_argument("--gallery", help="file (default: next to the plan)")
    correct.set_defaults(run=_correct_hubs)
    expire = actions.add_parser("expire", help="delete the pictures that have expired")
    expire.add_argument("gallery", help="file or address")
    expire.add_argument(
        "--trust-clock", action="store_true",
        help="expire even if the clock of this machine has moved far since the last use",
    )  # fmt: skip
    expire.set_defaults(run=_expire)


def _backup(arguments: argparse.Namespace) -> None:
    _copy(arguments.gallery, arguments.copy, overwrite=arguments.overwrite)


def _restore(arguments: argparse.Namespace) -> None:
    _copy(arguments.copy, arguments.gallery, overwrite=arguments.overwrite)


def _copy(source: Path, target: Path, *, overwrite: bool) -> None:
    with Gallery(source, create=False) as gallery:
        count = gallery.backup(target, overwrite=overwrite)
    print(f"copied {count} pictures to {printable(str(target))}, and checked them")


def _check(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        report = gallery.check()
    print(printable(str(report)))
    if not report.is_valid:
        raise GalleryError(f"{arguments.gallery} is invalid")


def _stats(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        if arguments.load:
            gallery.search(np.zeros((1, gallery.dim)), k=1)
        stats = gallery.stats()
    print(printable_json(stats.to_dict()) if arguments.json else printable(str(stats)))


def _compact(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        gallery.compact()
        print(f"compacted {printable(str(arguments.gallery))}, which holds {len(gallery)} pictures")


def _correct_hubs(arguments: argparse.Namespace) -> None:
    plan = Plan(arguments.plan)
    path, fingerprint = gallery_path(plan.path, arguments.gallery), plan.manifest.fingerprint
    with Gallery(path, fingerprint=fingerprint, create=False) as gallery:
        print(correct_hubs(correction_of(plan), gallery))


def _expire(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        print(f"deleted {gallery.expire(trust_clock=arguments.trust_clock)} pictures")
