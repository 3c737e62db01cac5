"""Precision of queries by a picture and words, such as "but in a blue jacket", on rendered people.

    python benchmarks/composed_queries.py model.plan --data data/synthetic

Each query is a picture and a new colour of one garment. A picture is right if it shows another
person of the same gender, with garments of the same kinds, the new colour, and the other garment in
its old colour. The gallery has at least two right pictures for each query. The validation split
(``--split val``) has 19 such queries and prefers weights from 0.7 to 0.8, so the default is 0.7.
Writes ``benchmarks/results/composed_queries.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from rendered_people import Attributes, People, run
from tabulate import tabulate

from finegrain.metrics import precision_at_k

K = 10
NUM_QUERIES = 200
LEAST_RIGHT = 2
WEIGHTS = (0.4, 0.5, 0.6, 0.7, 0.8)
COLORS = ("black", "white", "red", "blue", "green", "yellow", "grey", "brown")
GARMENTS = ("upper", "lower")


class Case(NamedTuple):
    """A picture, the words that change it, and what right pictures show."""

    id: int
    text: str
    shown: Attributes
    is_right: frozenset[int]


def cases(of: People) -> Iterator[Case]:
    """Queries in a random order that is always the same."""
    random = np.random.default_rng(0)
    pid = {id_: of.samples[n].pid for n, id_ in enumerate(of.paths)}
    for id_ in random.permutation(list(of.paths)).tolist():
        shown = of.attributes[id_]
        part = str(random.choice(GARMENTS))
        color = str(random.choice([c for c in COLORS if c != shown[f"{part}_color"]]))
        if any(shown[garment] is None for garment in GARMENTS):
            continue
        wanted = {**shown, f"{part}_color": color}
        names = ["gender", *GARMENTS, *(f"{garment}_color" for garment in GARMENTS)]
        right = frozenset(
            other
            for other, attributes in of.attributes.items()
            if pid[other] != pid[id_] and all(attributes[name] == wanted[name] for name in names)
        )
        if len(right) >= LEAST_RIGHT:
            article = "" if shown[part].endswith("s") else "a "
            yield Case(id_, f"but in {article}{color} {shown[part]}", shown, right)


def measure(of: People) -> dict[str, Any]:
    """Mean precision of each way to search."""
    gallery, encoder = of.searcher.gallery, of.searcher._encoder
    chosen = [case for case, _ in zip(cases(of), range(NUM_QUERIES), strict=False)]

    def by_sum(case: Case) -> list[int]:
        words = encoder.encode_texts([case.text.removeprefix("but ")])[0]
        return [
            hit.id
            for hit in gallery.search([gallery.vectors([case.id])[case.id] + words], K + 1)[0]
        ]

    def composed(weight: float) -> Callable[[Case], list[int]]:
        return lambda case: [
            match.id
            for match in of.searcher.query(
                image=of.paths[case.id], text=case.text, weight=weight, k=K + 1
            )
        ]

    ways: Mapping[str, Callable[[Case], list[int]]] = {
        "picture alone": lambda case: [
            match.id for match in of.searcher.query(of.paths[case.id], K + 1)
        ],
        "words alone": lambda case: [
            match.id for match in of.searcher.query(case.text.removeprefix("but "), K + 1)
        ],
        "sum of both vectors": by_sum,
        **{f"composed, weight {weight}": composed(weight) for weight in WEIGHTS},
    }
    precision = {
        name: fmean(
            precision_at_k([id_ in case.is_right for id_ in search(case) if id_ != case.id], K)
            for case in chosen
        )
        for name, search in ways.items()
    }
    return {"what": "composed_queries", "queries": len(chosen), "k": K, "precision": precision}


def table(measured: dict[str, Any]) -> str:
    rows = list(measured["precision"].items())
    return tabulate(rows, headers=["", f"precision@{K}"], floatfmt=".3f")


if __name__ == "__main__":
    run(__doc__, measure, table)
