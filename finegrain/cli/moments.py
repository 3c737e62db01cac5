"""The verb ``moments``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from finegrain.cli.json_output import printable_json
from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import ImageError
from finegrain.records import printable
from finegrain.search.moments import GAP_SECONDS, Moments, Per
from finegrain.search.queries import typed_file
from finegrain.search.retriever import DEFAULT_K


def add_moments_verb(verbs: Verbs) -> None:
    moments = add_verb(
        verbs,
        "moments",
        _moments,
        "find when somebody who fits a text or a picture was in front of a camera",
        '  finegrain moments model.plan "woman in red coat"\n'
        '  finegrain moments model.plan "man with a backpack" --where "entered_door is not null"\n'
        '  finegrain moments model.plan "woman in red coat" --clips clips/ -k 3',
    )
    moments.add_argument("plan", type=Path)
    moments.add_argument("query", metavar="TEXT|PICTURE")
    moments.add_argument(
        "-k", type=int, default=DEFAULT_K, help="number of moments (default: %(default)s)"
    )
    moments.add_argument("--where", help="filter, such as: camera = 'gate-3' and time >= '2026-05'")
    moments.add_argument(
        "--per", choices=get_args(Per), default="track",
        help="a moment for each track, or for pictures that are close in time (default: track)",
    )  # fmt: skip
    moments.add_argument(
        "--min-probability", type=float, metavar="P",
        help="leave out moments of a lower probability; the plan needs a calibration",
    )  # fmt: skip
    moments.add_argument(
        "--gap", type=float, default=GAP_SECONDS, metavar="SECONDS",
        help="longest time between two pictures of one moment (default: %(default)s)",
    )  # fmt: skip
    moments.add_argument(
        "--clips", type=Path, metavar="FOLDER", help="write the part of the video of each moment"
    )
    moments.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_opening_options(moments)


def _moments(arguments: argparse.Namespace) -> None:
    with open_searcher(arguments) as searcher:
        moments = searcher.moments(
            typed_file(arguments.query) or arguments.query,
            arguments.k,
            where=arguments.where,
            per=arguments.per,
            min_probability=arguments.min_probability,
            gap=arguments.gap,
        )
    if arguments.json:
        for note in moments.notes:
            print(f"note: {printable(note)}", file=sys.stderr)
        print(printable_json(moments.to_dicts()))
    else:
        print(printable(repr(moments)))
    if arguments.clips is not None:
        _write_clips(moments, arguments.clips)


def _write_clips(moments: Moments, folder: Path) -> None:
    """Write a clip of each moment of a video; moments of streams are named and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for moment in moments:
        try:
            moment.save_clip(folder / f"{moment.rank:02d}-{moment.id}.mp4")
            written += 1
        except ImageError as error:
            print(printable(str(error)), file=sys.stderr)
    print(f"wrote {written} of {len(moments)} clips to {folder}", file=sys.stderr)
