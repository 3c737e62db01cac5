"""The command line: its verbs are the names of the Python API."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import finegrain
from finegrain.cli import training
from finegrain.cli.alerts import add_alerts_verb
from finegrain.cli.calibrate import add_calibrate_verb
from finegrain.cli.completion import INSTALL, SHELLS, completion_script
from finegrain.cli.exit_status import run_to_status
from finegrain.cli.gallery import add_gallery_verb
from finegrain.cli.index import add_index_verb
from finegrain.cli.moments import add_moments_verb
from finegrain.cli.pull import add_pull_verb
from finegrain.cli.query import add_embed_verb, add_query_verb
from finegrain.cli.serve import add_audit_verb, add_browse_verb, add_keys_verb, add_serve_verb
from finegrain.cli.verb import Verbs, add_verb
from finegrain.cli.watch import add_watch_verb
from finegrain.errors import DataError, FinegrainError, did_you_mean
from finegrain.records import printable


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the correct spelling of an unknown option or verb."""

    def error(self, message: str) -> NoReturn:
        if option := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            message += did_you_mean(option[1], self._options())
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += did_you_mean(choice[1], re.findall(r"'(.*?)'", choice[2]))
        super().error(message)

    def _options(self) -> list[str]:
        """The long options of all verbs."""
        verbs = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        shown = (verb.format_help() for choices in verbs for verb in choices.values())
        return [option for text in shown for option in re.findall(r"--[a-z][a-z-]+", text)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors of finegrain become one line and exit status 1."""

    def run() -> None:
        arguments = _parsed(argv)
        arguments.run(arguments)

    return run_to_status(run)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; texts and pictures may be before, between and after the options.

    argparse accepts positional arguments with ``nargs="*"`` only in one place.
    """
    parser = _parser()
    arguments, others = parser.parse_known_args(argv)
    several: str = getattr(arguments, "several", "")
    if others and (not several or any(word.startswith("-") for word in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    for word in others:
        getattr(arguments, several).append(Path(word) if several == "pictures" else word)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="finegrain",
        description="Fine-grained text-to-person and text-to-fashion image search.",
        epilog="Help for a verb: finegrain VERB --help",
    )
    parser.add_argument("--version", action="version", version=finegrain.__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_pull_verb(verbs)
    training.add_train_verb(verbs)
    training.add_evaluate_verb(verbs)
    training.add_report_verb(verbs)
    training.add_export_verb(verbs)
    training.add_convert_verb(verbs)
    add_index_verb(verbs)
    add_watch_verb(verbs)
    add_embed_verb(verbs)
    add_query_verb(verbs)
    add_moments_verb(verbs)
    add_calibrate_verb(verbs)
    add_gallery_verb(verbs)
    add_serve_verb(verbs)
    add_browse_verb(verbs)
    add_keys_verb(verbs)
    add_audit_verb(verbs)
    add_alerts_verb(verbs)
    _add_demo_verb(verbs)
    _add_doctor_verb(verbs)
    _add_completion_verb(verbs)
    training.add_recipe_verb(verbs)
    return parser


def _add_demo_verb(verbs: Verbs) -> None:
    demo = add_verb(
        verbs,
        "demo",
        _demo,
        "render people, train, evaluate, export, index and query, in minutes on a CPU",
        "  finegrain demo\n  FINEGRAIN_FAST=1 finegrain demo -o runs/fast",
    )
    demo.add_argument("-o", "--out", type=Path, default=Path("runs/demo"))
    demo.add_argument("--fast", action="store_true", help="less training (or FINEGRAIN_FAST=1)")


def _demo(arguments: argparse.Namespace) -> None:
    training.require_training()
    from finegrain.cli.demo import run_demo

    run_demo(arguments.out, fast=arguments.fast)


def _add_doctor_verb(verbs: Verbs) -> None:
    doctor = add_verb(
        verbs,
        "doctor",
        _doctor,
        "report on this machine, and check plans, galleries and datasets",
        "  finegrain doctor\n"
        "  finegrain doctor model.plan model.gallery\n"
        "  finegrain doctor data cuhk_pedes data/CUHK-PEDES\n"
        "  finegrain doctor data icfg_pedes data/ICFG-PEDES rstpreid data/RSTPReid\n"
        "  finegrain doctor data fashion_gen data/Fashion-Gen",
    )
    doctor.add_argument(
        "subjects", nargs="*", metavar="SUBJECT",
        help="plans and galleries to check; or data NAME ROOT [NAME ROOT ...]: datasets, and "
        "the pictures that the training and test splits of person datasets share",
    )  # fmt: skip


def _doctor(arguments: argparse.Namespace) -> None:
    from finegrain.cli.doctor import examine, machine_report

    if arguments.subjects[:1] == ["data"]:
        _doctor_data(arguments.subjects[1:])
        return
    print(machine_report())
    invalid = []
    for path in map(Path, arguments.subjects):
        try:
            print(f"\n{printable(str(examine(path)))}")
        except FinegrainError as error:
            invalid.append(str(path))
            print(printable(f"\n{path}: INVALID; {error}"))
    if invalid:
        raise DataError(f"invalid: {', '.join(invalid)}")


def _doctor_data(words: Sequence[str]) -> None:
    from finegrain.cli.doctor import dataset_names, examine_datasets, known_dataset

    if not words or len(words) % 2:
        names = ", ".join(dataset_names())
        raise DataError(f"expected finegrain doctor data NAME ROOT [NAME ROOT ...]; NAME: {names}")
    pairs = zip(words[::2], words[1::2], strict=True)
    is_valid = True
    for finding in examine_datasets([(known_dataset(name), Path(root)) for name, root in pairs]):
        print(f"{printable(str(finding))}\n")
        is_valid = is_valid and not finding.faults
    if not is_valid:
        raise DataError("this data would falsify a result; see what is INVALID above")


def _add_completion_verb(verbs: Verbs) -> None:
    completion = add_verb(
        verbs,
        "completion",
        lambda arguments: print(completion_script(_parser(), arguments.shell)),
        "print a script that completes commands in a shell",
        INSTALL,
    )
    completion.add_argument("shell", choices=SHELLS)
