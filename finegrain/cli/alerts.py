"""The verb ``alerts``: standing queries of a service."""

from __future__ import annotations

import argparse
from pathlib import Path

from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import DataError
from finegrain.records import printable
from finegrain.serve import DEFAULT
from finegrain.serve.alerts.addresses import Target
from finegrain.serve.alerts.book import AlertBook, Standing


def add_alerts_verb(verbs: Verbs) -> None:
    """Add ``finegrain alerts ACTION`` to the verbs of a parser."""
    alerts = add_verb(
        verbs,
        "alerts",
        None,
        "make, list and remove the standing queries of a service",
        '  finegrain alerts make alerts.db raincoat "person in a yellow raincoat"\n'
        '  finegrain alerts make alerts.db gate "man with a ladder" \\\n'
        "      --where \"camera = 'gate-3'\" --false-alarms-per-day 0.2 \\\n"
        "      --webhook https://example.com/alarms\n"
        "  finegrain serve model.plan --alerts alerts.db\n"
        "  finegrain alerts list alerts.db\n"
        "  finegrain alerts remove alerts.db raincoat",
    )
    actions = alerts.add_subparsers(metavar="ACTION", required=True)
    make = actions.add_parser(
        "make", help="make a standing query over pictures that are added from now on"
    )
    make.add_argument("file", type=Path, help="file of standing queries; created if needed")
    make.add_argument("name", help="name of the standing query")
    make.add_argument("query", help="text to search for")
    make.add_argument(
        "--in", dest="gallery", default=DEFAULT, metavar="GALLERY",
        help="name of the gallery, if the service has several",
    )  # fmt: skip
    make.add_argument("--where", help="filter on the columns")
    make.add_argument(
        "--avoid", action="append", default=[], metavar="PHRASE",
        help="what must not be there; may be repeated",
    )  # fmt: skip
    make.add_argument(
        "--per", default="track", metavar="COLUMN",
        help="one alarm for each value of this column; '' for each picture (default: track)",
    )  # fmt: skip
    make.add_argument(
        "--false-alarms-per-day", type=float, default=1.0, metavar="N",
        help="mean number of wrong pictures in a day that raise an alarm (default: 1)",
    )  # fmt: skip
    make.add_argument("--min-score", type=float, help="the least score itself, instead of a rate")
    make.add_argument(
        "--pictures-per-day", type=float, metavar="N",
        help="pictures that are added in a day (default: counted over the last seven days)",
    )  # fmt: skip
    make.add_argument(
        "--webhook", metavar="ADDRESS",
        help="where to send alarms, signed with a secret that is printed once",
    )  # fmt: skip
    make.set_defaults(run=_make)
    show = actions.add_parser("list", help="list the standing queries")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_list)
    remove = actions.add_parser("remove", help="remove a standing query with its alarms")
    remove.add_argument("file", type=Path)
    remove.add_argument("name")
    remove.set_defaults(run=_remove)


def _make(arguments: argparse.Namespace) -> None:
    if arguments.webhook is not None:
        Target.of(arguments.webhook)
    standing = Standing.checked(
        arguments.name,
        arguments.query,
        gallery=arguments.gallery,
        where=arguments.where,
        avoid=arguments.avoid,
        per=arguments.per or None,
        false_alarms_per_day=arguments.false_alarms_per_day,
        min_score=arguments.min_score,
        pictures_per_day=arguments.pictures_per_day,
        webhook=arguments.webhook,
    )
    with AlertBook(arguments.file) as book:
        secret = book.add(standing)
    print(f"made {printable(standing.name)}" if secret is None else secret)


def _list(arguments: argparse.Namespace) -> None:
    with _existing(arguments.file) as book:
        progress = book.progress()
        for one in book.all():
            rate = (
                f"score >= {one.min_score:g}"
                if one.false_alarms_per_day is None
                else f"{one.false_alarms_per_day:g} false alarms a day"
            )
            where = "" if one.where is None else f"  where {one.where}"
            done = progress[one.name]
            webhook = ""
            if one.webhook is not None:
                dropped = f", {done.dropped} dropped" if done.dropped else ""
                webhook = f"  {Target.of(one.webhook).shown} ({done.waiting} waiting{dropped})"
            print(
                printable(
                    f"{one.name}  {one.query!r}  {rate}{where}  {done.alarms} alarms{webhook}"
                )
            )


def _remove(arguments: argparse.Namespace) -> None:
    with _existing(arguments.file) as book:
        book.remove(arguments.name)
    print(f"removed {printable(arguments.name)}")


def _existing(file: Path) -> AlertBook:
    if not file.exists():
        raise DataError(f"there is no file {file}. Make an alert with: finegrain alerts make")
    return AlertBook(file)
