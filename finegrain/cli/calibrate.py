"""The verb ``calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb
from finegrain.search.asking.calibrating import read_judged


def add_calibrate_verb(verbs: Verbs) -> None:
    calibrate = add_verb(
        verbs,
        "calibrate",
        _calibrate,
        "fit the probability of a match on queries whose right pictures are known",
        "  finegrain calibrate model.plan --queries judged.csv\n"
        "  finegrain calibrate model.plan --queries judged.csv -o calibrated.plan",
    )
    calibrate.add_argument("plan", type=Path)
    calibrate.add_argument(
        "--queries", type=Path, required=True, metavar="FILE",
        help="CSV with the column text, and columns of the gallery, such as pid, that the right "
        "pictures of the text have; empty cells state that nobody fits",
    )  # fmt: skip
    calibrate.add_argument(
        "-o", "--out", type=Path, help="path of the new plan (default: replace the plan)"
    )
    add_opening_options(calibrate)


def _calibrate(arguments: argparse.Namespace) -> None:
    with open_searcher(arguments) as searcher:
        queries = read_judged(arguments.queries, searcher.gallery)
        calibrated = searcher.calibrate(queries)
    calibrated.write(arguments.plan, arguments.out)
    print(f"{calibrated}; wrote {arguments.out or arguments.plan}")
