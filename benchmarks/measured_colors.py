"""Whether colours that are measured in the picture help queries that name colours.

    python benchmarks/measured_colors.py model.plan --data data/synthetic --photos clothing/

The upper and lower half of each rendered person gets the name of its dominant colour against the
border (:func:`finegrain.data.colors.dominant_color`). A query that names the colour of an upper or
lower garment adds a weight to the score of each picture with that colour. The measurement alone is
compared with the truth, and with labels by eye of 98 photographs of clothes
(``photo_colors.csv``; a photograph may have several right colours). Writes
``benchmarks/results/measured_colors.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from everyday_words import EVERYDAY
from PIL import Image
from rendered_people import People, people
from tabulate import tabulate

from finegrain.data.colors import dominant_color
from finegrain.metrics import precision_at_k
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, Predicate, matches

ROOT = Path(__file__).parents[1]
LABELS = Path(__file__).with_name("photo_colors.csv")
K = 10
CANDIDATES = 500
"""Number of best pictures of a query whose order the colours may change."""

HALVES = {"upper": (0.20, 0.46), "lower": (0.54, 0.84)}
"""Rows of a person's picture, as shares of its height."""

WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


def measured(path: Path) -> dict[str, str]:
    """The dominant colour of each half of a person."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    return {
        f"{half}_color": _named_here(
            dominant_color(picture.crop((0, int(top * height), width, int(bottom * height))))
        )
        for half, (top, bottom) in HALVES.items()
    }


def _named_here(color: str) -> str:
    return "grey" if color == "gray" else color


def colors_in(predicate: Predicate) -> dict[str, str]:
    """Colours of garments that a query names."""
    named = {f"{half}_color": predicate.get(f"{half}_color") for half in HALVES}
    return {name: color for name, color in named.items() if isinstance(color, str)}


def precisions(of: People, shown: Mapping[int, Mapping[str, str]]) -> dict[str, float]:
    """Mean precision at 10 by weight of a measured colour."""
    queries = {q.text: q.predicate for q in ATTRIBUTE_QUERIES}
    queries |= {twins.plain: twins.predicate for twins in EVERYDAY}
    queries = {text: right for text, right in queries.items() if colors_in(right)}
    reached: dict[str, list[float]] = {str(weight): [] for weight in WEIGHTS}
    for text, right in queries.items():
        answer = of.searcher.query(text, CANDIDATES)
        scores = np.array([match.score for match in answer])
        fits = np.array(
            [
                sum(shown[match.id][name] == color for name, color in colors_in(right).items())
                for match in answer
            ]
        )
        for weight in WEIGHTS:
            best = np.argsort(-(scores + weight * fits), kind="stable")[:K]
            is_right = [matches(of.attributes[answer[int(at)].id], right) for at in best]
            reached[str(weight)].append(precision_at_k(is_right, K))
    return {weight: fmean(values) for weight, values in reached.items()}


def accuracy(of: People, shown: Mapping[int, Mapping[str, str]]) -> dict[str, float]:
    """Share of the people whose measured colour is the true one, by half."""
    shares = {}
    for half in HALVES:
        worn = {id_: a for id_, a in of.attributes.items() if a[half] is not None}
        name = f"{half}_color"
        shares[half] = fmean(shown[id_][name] == a[name] for id_, a in worn.items())
    return shares


def agreement(photos: Path) -> dict[str, int]:
    """Number of photographs whose measured colour is one of those seen by eye."""
    with LABELS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    agreeing = [
        dominant_color(Image.open(photos / row["file"]).convert("RGB")) in row["colors"].split()
        for row in rows
    ]
    return {"photographs": len(agreeing), "agreeing": sum(agreeing)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--photos", type=Path, help="folder of the photographs of clothes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with people(arguments.plan, arguments.data, arguments.split) as of:
        shown = {id_: measured(path) for id_, path in of.paths.items()}
        results: dict[str, Any] = {
            "what": "measured_colors",
            "split": arguments.split,
            "gallery": len(shown),
            "accuracy": accuracy(of, shown),
            "precision": precisions(of, shown),
        }
    if arguments.photos is not None:
        results["labels_by_eye"] = agreement(arguments.photos)
    rows = results["precision"].items()
    print(tabulate(rows, headers=["weight", f"precision@{K}"], floatfmt=".3f"))
    print(results["accuracy"], results.get("labels_by_eye"))
    path = arguments.out / "measured_colors.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
