"""The verb ``calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb
from finegrain.search.asking.calibrating import read_bank, read_judged


def add_calibrate_verb(verbs: Verbs) -> None:
    calibrate = add_verb(
        verbs,
        "calibrate",
        _calibrate,
        "fit the probability of a match, and hub correction, on queries with known right pictures",
        "  finegrain calibrate model.plan --queries judged.csv\n"
        "  finegrain calibrate model.plan --queries judged.csv -o calibrated.plan\n"
        "  finegrain calibrate model.plan --queries judged.csv --bank earlier_queries.txt",
    )
    calibrate.add_argument("plan", type=Path)
    calibrate.add_argument(
        "--queries", type=Path, required=True, metavar="FILE",
        help="CSV with the column text, and columns of the gallery, such as pid, that the right "
        "pictures of the text have; empty cells state that nobody fits",
    )  # fmt: skip
    calibrate.add_argument(
        "--bank", type=Path, metavar="FILE",
        help="also choose hub correction with these texts, one a line, such as earlier queries",
    )  # fmt: skip
    calibrate.add_argument(
        "-o", "--out", type=Path, help="path of the new plan (default: replace the plan)"
    )
    add_opening_options(calibrate)


def _calibrate(arguments: argparse.Namespace) -> None:
    bank = None if arguments.bank is None else read_bank(arguments.bank)
    with open_searcher(arguments) as searcher:
        queries = read_judged(arguments.queries, searcher.gallery)
        calibrated = searcher.calibrate(queries, bank=bank)
    calibrated.write(arguments.plan, arguments.out)
    plan = arguments.out or arguments.plan
    print(f"{calibrated}; wrote {plan}")
    if bank is not None and calibrated.background and calibrated.background.weight:
        place = "" if arguments.gallery is None else f" --gallery {arguments.gallery}"
        print(f"correct the gallery with:\n  finegrain gallery correct-hubs {plan}{place}")
