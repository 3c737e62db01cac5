"""Precision of queries such as "man in a black jacket without a backpack" on rendered people.

    python benchmarks/denied_words.py model.plan --data data/synthetic

Each query of the renderer's twenty that has no bag in it is joined with each of ten things, if at
least three right pictures show the thing and ten do not. A picture is right if it shows what the
query asks for and does not show the denied thing. Writes ``benchmarks/results/denied_words.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from rendered_people import Attributes, People, run
from tabulate import tabulate

from finegrain.metrics import precision_at_k
from finegrain.search.matches import Matches
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, AttributeQuery, matches

K = 10
LEAST_DENIED, LEAST_RIGHT = 3, K

THINGS: Mapping[str, Callable[[Attributes], bool]] = {
    "a backpack": lambda shown: shown["bag"] == "backpack",
    "a handbag": lambda shown: shown["bag"] == "handbag",
    "a bag": lambda shown: shown["bag"] is not None,
    "a hat": lambda shown: shown["hat"] is not None,
    "a cap": lambda shown: shown["hat"] == "cap",
    "an umbrella": lambda shown: bool(shown["umbrella"]),
    "blue jeans": lambda shown: shown["lower"] == "jeans" and shown["lower_color"] == "blue",
    "a striped top": lambda shown: shown["upper_pattern"] == "striped",
    "a skirt": lambda shown: shown["lower"] == "skirt",
    "boots": lambda shown: shown["shoes"] == "boots",
}

WAYS: Mapping[str, Callable[[People, str, str], Matches]] = {
    "all words encoded (--no-negation)": lambda of, query, thing: of.searcher.query(
        f"{query} without {thing}", K, negation=False
    ),
    "without the denied words": lambda of, query, thing: of.searcher.query(query, K),
    "denied words read": lambda of, query, thing: of.searcher.query(f"{query} without {thing}", K),
    "avoid=": lambda of, query, thing: of.searcher.query(query, K, avoid=thing),
}


def cases(of: People) -> list[tuple[AttributeQuery, str]]:
    """Queries and denied things with enough right pictures and enough that show the thing."""
    chosen = []
    for query in ATTRIBUTE_QUERIES:
        if "bag" in query.predicate or " or " in query.text:
            continue
        wanted = [shown for shown in of.attributes.values() if matches(shown, query.predicate)]
        for thing, is_shown in THINGS.items():
            num_denied = sum(map(is_shown, wanted))
            if num_denied >= LEAST_DENIED and len(wanted) - num_denied >= LEAST_RIGHT:
                chosen.append((query, thing))
    return chosen


def measure(of: People) -> dict[str, Any]:
    """Mean precision, and mean share of the denied thing, of each way to search."""
    chosen = cases(of)
    ways = {}
    for name, search in WAYS.items():
        precision, denied = [], []
        for query, thing in chosen:
            top = [of.attributes[match.id] for match in search(of, query.text, thing)]
            shows = [THINGS[thing](shown) for shown in top]
            right = [matches(a, query.predicate) and not s for a, s in zip(top, shows, strict=True)]
            precision.append(precision_at_k(right, K))
            denied.append(precision_at_k(shows, K))
        ways[name] = {"precision": fmean(precision), "denied": fmean(denied)}
    return {"what": "denied_words", "queries": len(chosen), "k": K, "ways": ways}


def table(measured: dict[str, Any]) -> str:
    rows = [(name, at["precision"], at["denied"]) for name, at in measured["ways"].items()]
    return tabulate(rows, headers=["", f"precision@{K}", "denied thing shown"], floatfmt=".3f")


if __name__ == "__main__":
    run(__doc__, measure, table)
