"""Is "nobody" recognised? A calibrated probability beside one fixed cosine, on rendered people.

    python benchmarks/no_match.py model.plan --data data/synthetic

The probability is fitted on the validation split. Queries are captions of the test split. For half
of them, all pictures of the person are removed. A threshold for each score is chosen on the
validation split, over galleries of several sizes, so that a tenth of the queries for absent people
have a match. It is then applied to test galleries of each size. Writes
``benchmarks/results/no_match.json`` and a plot of the reliability.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from finegrain.data.datasets import SyntheticPeople, take_split
from finegrain.encoder import Encoder
from finegrain.evaluation.decisions import brier_score, fnir_at_fpir, reliability
from finegrain.evaluation.decisions_plot import draw_reliability
from finegrain.evaluation.match_probability import fit
from finegrain.evaluation.open_set import Judged, judge, scores_of
from finegrain.plan import Plan

ROOT = Path(__file__).parents[1]
FPIR = 0.1
VALIDATION_SIZES = (50, 100, 200, 400)
SIZES = (100, 1000, 2300)
BINS = 10


def measure(encoder: Encoder, people: SyntheticPeople) -> dict[str, Any]:
    """All results."""
    splits = people.splits()
    validation = scores_of(encoder, take_split(splits, "val"))
    model = fit(*validation)
    chosen = judge(*validation, VALIDATION_SIZES, model)
    test = scores_of(encoder, take_split(splits, "test"))
    by_size = {size: judge(*test, [size], model) for size in SIZES}
    ways = {}
    for name in ("cosine", "probability"):
        absent = getattr(chosen, name)[~chosen.present]
        threshold = float(np.quantile(absent, 1 - FPIR, method="higher"))
        ways[name] = {"threshold": threshold, "by_size": {}}
        for size, judged in by_size.items():
            values = getattr(judged, name)
            accepted = values > threshold
            present = judged.present
            rates = {
                f"fnir_at_{rate:g}": fnir_at_fpir(
                    values[present], judged.right[present], values[~present], rate
                )
                for rate in (0.01, 0.1)
            }
            ways[name]["by_size"][str(size)] = {
                "fpir": float(accepted[~present].mean()),
                "fnir": float(1 - (accepted & judged.right)[present].mean()),
                **rates,
            }
    joined = Judged(*(np.concatenate(part) for part in zip(*by_size.values(), strict=True)))
    return {
        "what": "no_match",
        "queries": len(test[0]),
        "coefficients": model.to_dict(),
        "ways": ways,
        "fnir_without_threshold": {
            str(size): float(1 - judged.right[judged.present].mean())
            for size, judged in by_size.items()
        },
        "brier": brier_score(joined.probability, joined.right),
        "brier_of_a_constant": float(joined.right.mean() * (1 - joined.right.mean())),
        "reliability": [
            part._asdict() for part in reliability(joined.probability, joined.right, BINS)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", default="data/synthetic")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    measured = measure(
        Encoder.from_plan(Plan(arguments.plan)), SyntheticPeople(root=arguments.data)
    )
    rows = [
        (name, size, at["fpir"], at["fnir"], at["fnir_at_0.01"], at["fnir_at_0.1"])
        for name, way in measured["ways"].items()
        for size, at in way["by_size"].items()
    ]
    heads = ["score", "pictures", "FPIR", "FNIR", "FNIR at FPIR 1 %", "at 10 %"]
    print(tabulate(rows, headers=heads, floatfmt=".3f"))
    print(f"Brier {measured['brier']:.3f}, a constant {measured['brier_of_a_constant']:.3f}")
    (arguments.out / "no_match.json").write_text(json.dumps(measured, indent=1) + "\n")
    draw_reliability(
        [(part["probability"], part["right"]) for part in measured["reliability"]],
        arguments.out / "no_match.png",
    )
    print(f"wrote {arguments.out / 'no_match.json'} and no_match.png")


if __name__ == "__main__":
    main()
