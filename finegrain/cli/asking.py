"""Asks the questions of a dialogue on the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import finegrain
from finegrain.errors import QueryError
from finegrain.search.asking.dialogue import Dialogue
from finegrain.search.matches import Matches
from finegrain.search.queries import Query

_HELP = (
    "answer with a value or with 'not VALUE'; press Enter if you do not know, or type 'undo' or "
    "'stop'"
)
_FEW = 3
"""Number of matches that are shown between questions."""


def check_askable(
    arguments: argparse.Namespace, pictures: Sequence[Path], queries: Sequence[Query]
) -> None:
    """Check that a terminal can ask, and that the other options suit a dialogue.

    Raises:
        QueryError: There is no terminal, the query is not one text, or an option does not suit.
    """
    if not sys.stdin.isatty():
        raise QueryError(
            "--ask asks questions on a terminal, and the standard input is none. In a program, "
            "use Searcher.dialogue."
        )
    if pictures or len(queries) != 1 or not isinstance(queries[0], str):
        raise QueryError("expected one text and no picture for --ask. Begin with a text.")
    other = {
        "--like": arguments.like,
        "--unlike": arguments.unlike,
        "--min-probability": arguments.min_probability is not None,
        "--offset": arguments.offset,
        "--group-by": arguments.group_by,
        "--distinct": arguments.distinct is not None,
        "--json": arguments.json,
    }
    if given := [name for name, value in other.items() if value]:
        raise QueryError(f"--ask does not take {' and '.join(given)}. Leave them out.")


def ask(searcher: finegrain.Searcher, text: str, arguments: argparse.Namespace) -> Matches:
    """Ask questions until the answer is clear, or the user stops; returns the matches."""
    dialogue = searcher.dialogue(
        text,
        arguments.k,
        where=arguments.where,
        avoid=arguments.avoid,
        negation=arguments.negation,
        words=arguments.words,
    )
    print(_HELP, file=sys.stderr)
    while (question := dialogue.question) is not None:
        print(f"\n{dialogue.matches[:_FEW]!r}\n\n{question}", file=sys.stderr)
        try:
            reply = input("> ").strip()
        except EOFError:
            break
        if reply == "stop":
            break
        try:
            _reply(dialogue, reply)
        except QueryError as error:
            print(error, file=sys.stderr)
    if dialogue.stopped is not None:
        print(f"no further question: {dialogue.stopped}\n", file=sys.stderr)
    return dialogue.matches


def _reply(dialogue: Dialogue, reply: str) -> None:
    if not reply:
        dialogue.skip()
    elif reply == "undo":
        dialogue.undo()
    elif reply.startswith("not "):
        dialogue.deny(reply.removeprefix("not "))
    else:
        dialogue.answer(reply)
