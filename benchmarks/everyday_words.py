"""Precision of queries in everyday words, with typos, and in another case, on rendered people.

    python benchmarks/everyday_words.py model.plan --data data/synthetic

Each of twenty queries in everyday words has a plain twin in words of the renderer. The everyday
queries were written before the list of names in ``finegrain.data.everyday_words``, by the same
person. The plan must know its vocabulary. Writes ``benchmarks/results/everyday_words.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rendered_people import People, people
from tabulate import tabulate

from finegrain.metrics import precision_at_k
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, Predicate, matches

ROOT = Path(__file__).parents[1]
K = 10
TYPO_LENGTH = 5
"""Words of at least this many letters get a typo."""


class Twins(NamedTuple):
    """A query in everyday words, the same in plain words, and what is right."""

    everyday: str
    plain: str
    predicate: Predicate


def _twins(everyday: str, plain: str, **predicate: Any) -> Twins:
    return Twins(everyday, plain, predicate)


EVERYDAY = (
    _twins("bloke with a rucksack and blue denims", "man with a backpack and blue jeans",
           gender="man", bag="backpack", lower="jeans", lower_color="blue"),
    _twins("lass in a crimson coat", "woman in a red coat",
           gender="woman", upper="coat", upper_color="red"),
    _twins("fella wearing a jet black bomber", "man wearing a black jacket",
           gender="man", upper="jacket", upper_color="black"),
    _twins("female in a stripey frock", "woman in a striped dress",
           gender="woman", upper="dress", upper_pattern="striped"),
    _twins("someone beneath a scarlet brolly", "person under a red umbrella",
           umbrella_color="red"),
    _twins("anyone in a mustard windbreaker", "person in a yellow jacket",
           upper="jacket", upper_color="yellow"),
    _twins("tartan button-down", "checked shirt", upper="shirt", upper_pattern="checked"),
    _twins("woman in a navy gown", "woman in a blue dress",
           gender="woman", upper="dress", upper_color="blue"),
    _twins("dude in a maroon tee", "man in a red t-shirt",
           gender="man", upper="t-shirt", upper_color="red"),
    _twins("individual in an ivory hooded top", "person in a white hoodie",
           upper="hoodie", upper_color="white"),
    _twins("burgundy chinos", "red trousers", lower="trousers", lower_color="red"),
    _twins("gal wearing an ebony trench coat", "woman wearing a black coat",
           gender="woman", upper="coat", upper_color="black"),
    _twins("gent in a snow-white overcoat", "man in a white coat",
           gender="man", upper="coat", upper_color="white"),
    _twins("lemon blouse", "yellow shirt", upper="shirt", upper_color="yellow"),
    _twins("ruby puffer with navy denims", "red jacket with blue jeans",
           upper="jacket", upper_color="red", lower="jeans", lower_color="blue"),
    _twins("girl in a jet miniskirt", "girl in a black skirt",
           gender="woman", lower="skirt", lower_color="black"),
    _twins("chap with a knapsack and ebony pants", "man with a backpack and black pants",
           gender="man", bag="backpack", lower="trousers", lower_color="black"),
    _twins("emerald trench", "green coat", upper="coat", upper_color="green"),
    _twins("lad in khaki slacks", "man in beige slacks",
           gender="man", lower="trousers", lower_color="beige"),
    _twins("olive hoody", "green hoodie", upper="hoodie", upper_color="green"),
)  # fmt: skip


def mistyped(text: str, seed: int) -> str:
    """Exchange two neighbouring letters in each longer word.

    >>> mistyped("woman in a striped dress", 1)
    'owman in a srtiped drses'
    """
    draw = random.Random(f"{text}/{seed}")

    def exchanged(match: re.Match[str]) -> str:
        word = match[0]
        places = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
        at = draw.choice(places)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return re.sub(rf"[a-z]{{{TYPO_LENGTH},}}", exchanged, text)


PLAIN_WAYS: Mapping[str, Callable[[str], str]] = {
    "as they are": str,
    "upper case": str.upper,
    "with a full stop": "{}.".format,
    "typo in longer words": lambda text: mistyped(text, 0),
    "another typo in longer words": lambda text: mistyped(text, 1),
}


def precision(of: People, query: str, predicate: Predicate, *, words: bool) -> float:
    """Precision at 10 of one query."""
    answer = of.searcher.query(query, K, words=words)
    return precision_at_k([matches(of.attributes[m.id], predicate) for m in answer], K)


def measure(of: People) -> dict[str, Any]:
    """Mean precision of each kind of query, with and without reading words."""

    def both(queries: list[tuple[str, Predicate]]) -> dict[str, float]:
        return {
            name: fmean(precision(of, query, right, words=words) for query, right in queries)
            for name, words in (("words=True", True), ("words=False", False))
        }

    kinds = {
        "everyday words": both([(twins.everyday, twins.predicate) for twins in EVERYDAY]),
        "their plain twins": both([(twins.plain, twins.predicate) for twins in EVERYDAY]),
    }
    for name, change in PLAIN_WAYS.items():
        asked = [(change(query.text), query.predicate) for query in ATTRIBUTE_QUERIES]
        kinds[f"renderer's queries, {name}"] = both(asked)
    return {"what": "everyday_words", "k": K, "precision": kinds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with people(arguments.plan, arguments.data, arguments.split) as of:
        measured = {**measure(of), "split": arguments.split, "gallery": len(of.samples)}
        answers = [(twins, of.searcher.query(twins.everyday, K)) for twins in EVERYDAY]
    rows = [(name, *at.values()) for name, at in measured["precision"].items()]
    print(tabulate(rows, headers=["", "words=True", "words=False"], floatfmt=".3f"))
    measured["notes"] = {twins.everyday: list(answer.notes) for twins, answer in answers}
    path = arguments.out / "everyday_words.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
