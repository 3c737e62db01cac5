"""Simulated users who answer the questions of a dialogue about rendered people.

    python benchmarks/dialogue_users.py model.plan --data data/synthetic

A user looks for one picture and begins with its gender and upper garment, as "woman in a coat". In
each round the user answers one question, wrongly in 10 % of the cases, and with "I don't know" in
20 %. The baseline adds a random statement about the picture to the text and searches again, with
the same shares of wrong and missing ones. A hit stays a hit in later rounds. BRI is the mean of
``1/2T sum (log r_t + log r_t+1)`` over queries, with the best rank ``r_t`` so far (Lee et al. 2024,
https://arxiv.org/abs/2406.03411); lower is better. Writes
``benchmarks/results/dialogue_users.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from rendered_people import Attributes, People, people
from tabulate import tabulate

from finegrain.search.asking.attributes import NONE, PEOPLE

ROOT = Path(__file__).parents[1]
ROUNDS = 5
HITS = (1, 5, 10)
WRONG, UNKNOWN = 0.1, 0.2
CANDIDATES = 500

TRUTH: Mapping[str, Callable[[Attributes], str | None]] = {
    "gender": lambda shown: shown["gender"],
    "upper garment": lambda shown: shown["upper"],
    "colour of the upper garment": lambda shown: shown["upper_color"],
    "lower garment": lambda shown: shown["lower"],
    "colour of the lower garment": lambda shown: shown["lower_color"],
    "shoes": lambda shown: shown["shoes"],
    "colour of the shoes": lambda shown: shown["shoes_color"],
    "bag": lambda shown: shown["bag"] or NONE,
    "umbrella": lambda shown: "umbrella" if shown["umbrella"] else NONE,
    "hat": lambda shown: shown["hat"] or NONE,
    "hair": lambda shown: shown["hair_length"],
    "colour of the hair": lambda shown: shown["hair_color"],
}
"""What a user who sees the picture answers, by the name of the attribute."""

VALUES = {attribute.name: attribute.values for attribute in PEOPLE}

STATEMENTS = {
    "gender": "a {}",
    "upper garment": "in a {}",
    "colour of the upper garment": "in a {} {upper}",
    "lower garment": "in {}",
    "colour of the lower garment": "in {} {lower}",
    "shoes": "in {}",
    "colour of the shoes": "in {} {shoes}",
    "bag": "with a {}",
    "umbrella": "with an {}",
    "hat": "wearing a {}",
    "hair": "with {} hair",
    "colour of the hair": "with {} hair",
}
"""How a user adds a statement to a text; the garments are those of the picture."""


class User:
    """Answers about one picture, sometimes wrongly or not at all."""

    def __init__(self, shown: Attributes, seed: str) -> None:
        self._shown = shown
        self._draw = random.Random(seed)

    def says(self, name: str, values: Sequence[str]) -> str | None:
        """The answer to a question; None if the user does not know."""
        truth = TRUTH[name](self._shown)
        fate = self._draw.random()
        if truth is None or truth not in values or fate < UNKNOWN:
            return None
        if fate < UNKNOWN + WRONG:
            return self._draw.choice([value for value in values if value != truth])
        return truth


def rank_of(wanted: int, ids: Sequence[int]) -> int:
    """Rank of a picture from 1; one more than the number of candidates if it is not there."""
    return ids.index(wanted) + 1 if wanted in ids else len(ids) + 1


def by_dialogue(of: People, wanted: int, text: str, user: User) -> Iterator[int]:
    """Ranks of the wanted picture before and after each answer."""
    dialogue = of.searcher.dialogue(text, CANDIDATES, attributes="people", candidates=CANDIDATES)
    yield rank_of(wanted, [match.id for match in dialogue.matches])
    while (question := dialogue.question) is not None:
        reply = user.says(question.attribute, question.values)
        if reply is None:
            dialogue.skip()
        else:
            dialogue.answer(reply)
        yield rank_of(wanted, [match.id for match in dialogue.matches])


def by_rephrasing(of: People, wanted: int, text: str, user: User) -> Iterator[int]:
    """Ranks of the wanted picture before and after each statement that is added to the text."""
    yield rank_of(wanted, [match.id for match in of.searcher.query(text, CANDIDATES)])
    names = list(TRUTH)
    random.Random(f"{wanted}/order").shuffle(names)
    for name in names:
        reply = user.says(name, VALUES[name])
        if reply is not None and reply != NONE:
            text += f", {STATEMENTS[name].format(reply, **of.attributes[wanted])}"
        yield rank_of(wanted, [match.id for match in of.searcher.query(text, CANDIDATES)])


WAYS = {"questions": by_dialogue, "random rephrasing": by_rephrasing}


def best_so_far(ranks: Iterator[int]) -> list[int]:
    """The best rank up to each round; a dialogue that stopped keeps its last one."""
    best: list[int] = []
    for _, rank in zip(range(ROUNDS + 1), ranks, strict=False):
        best.append(min([rank, *best[-1:]]))
    return best + best[-1:] * (ROUNDS + 1 - len(best))


def bri(ranks: Sequence[int]) -> float:
    """Best log rank integral of one query."""
    logs = [math.log(rank) for rank in ranks]
    return sum(a + b for a, b in pairwise(logs)) / (2 * (len(logs) - 1))


def measure(of: People, users: int) -> dict[str, Any]:
    """Cumulative hits by round, and BRI, of each way to go on from the same texts."""
    chosen = random.Random(0).sample(sorted(of.attributes), users)
    ways = {}
    for name, way in WAYS.items():
        ranks = []
        for wanted in chosen:
            shown = of.attributes[wanted]
            text = f"{shown['gender']} in a {shown['upper']}"
            ranks.append(best_so_far(way(of, wanted, text, User(shown, f"{wanted}"))))
        ways[name] = {
            "hits": {
                str(k): [fmean(at[t] <= k for at in ranks) for t in range(ROUNDS + 1)] for k in HITS
            },
            "bri": fmean(map(bri, ranks)),
        }
    return {"what": "dialogue_users", "users": users, "rounds": ROUNDS, "ways": ways}


def milliseconds(of: People) -> dict[str, float]:
    """Time of a round, and of its beginning: the query and the vectors of the candidates."""
    start = perf_counter()
    dialogue = of.searcher.dialogue("woman in a coat", candidates=CANDIDATES, attributes="people")
    begun = perf_counter()
    question = dialogue.question
    assert question is not None
    dialogue.answer(question.values[0])
    assert dialogue.matches
    return {"beginning": 1000 * (begun - start), "round": 1000 * (perf_counter() - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with people(arguments.plan, arguments.data, arguments.split) as of:
        measured = {
            **measure(of, arguments.users),
            "split": arguments.split,
            "gallery": len(of.samples),
            "candidates": CANDIDATES,
            "milliseconds": milliseconds(of),
        }
    rows = [
        (f"{name}, hits at {k}", *at["hits"][str(k)])
        for name, at in measured["ways"].items()
        for k in HITS
    ]
    print(tabulate(rows, headers=["round", *range(ROUNDS + 1)], floatfmt=".3f"))
    for name, at in measured["ways"].items():
        print(f"{name}: BRI {at['bri']:.3f}")
    print(measured["milliseconds"])
    path = arguments.out / "dialogue_users.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
