"""The benchmarks of answers over seeds, with the deviation: hubs, "nobody", denied words and more.

    python benchmarks/answers_by_seed.py
    python benchmarks/answers_by_seed.py --seeds 0 --set schedule.epochs=1 --people 20   # a look

Each seed trains the recipe of the demo and exports it, which takes six minutes on two cores with
AVX2. The parts then take about ten minutes a seed, so three seeds take less than an hour. Runs are
kept in ``runs/answers``. Each part is written to ``benchmarks/results/answers_by_seed.json`` when
it is measured. The same command continues after an interruption. Nothing is chosen on the test
split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import composed_queries
import denied_words
import explanation
import late_interaction
from rendered_people import RESULTS, people
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.evaluation.evaluation import evaluate
from finegrain.evaluation.open_set import open_set
from finegrain.exporters import export, load_profile
from finegrain.plan import Plan
from finegrain.recipe import load_recipe
from finegrain.training import train

RUNS = Path("runs/answers")
RECIPE = "quick_synthetic"
SEEDS = (0, 1, 2)

Numbers = Mapping[str, float]


def trained(seed: int, overrides: list[str]) -> tuple[Path, Path]:
    """The run and the plan of a seed."""
    run = RUNS / f"seed{seed}"
    plan = run / "model.plan"
    if not plan.exists():
        train(load_recipe(RECIPE, [*overrides, f"seed={seed}"]), run, resume=True)
        export(run, load_profile("onnx_fp32"), plan)
    return run, plan


def parts(run: Path, plan: Path, number: int) -> Mapping[str, Callable[[], Numbers]]:
    """Measurements by name; each gives numbers by name.

    Args:
        run, plan: A run and its plan.
        number: Number of people of the pointing game.
    """
    root = Path(load_recipe(run).data.root)

    def hubs() -> Numbers:
        measured = evaluate(plan, split="test", progress=False)
        assert measured.hub_corrected is not None
        plain, corrected = measured.text_to_image, measured.hub_corrected
        return {
            "rank1 without": plain.rank1,
            "rank1 with": corrected.rank1,
            "mAP without": plain.mAP,
            "mAP with": corrected.mAP,
        }

    def decisions() -> Numbers:
        measured = open_set(plan, split="test")
        rates = {
            f"FNIR, {at.size} pictures, {at.score}, at FPIR {fpir:g}": 100 * rate
            for at in measured.rates
            for fpir, rate in at.fnir.items()
        }
        return {**rates, "Brier score": measured.brier or float("nan")}

    def denied() -> Numbers:
        with people(plan, root, "test") as of:
            return {n: way["precision"] for n, way in denied_words.measure(of)["ways"].items()}

    def composed() -> Numbers:
        with people(plan, root, "test") as of:
            return dict(composed_queries.measure(of)["precision"])

    def pointing() -> Numbers:
        encoder = Encoder.from_plan(Plan(plan))
        measured = explanation.measure(encoder, run, number)
        return {name: way["inside"] for name, way in measured["ways"].items()}

    def late() -> Numbers:
        return {name: at["rank1"] for name, at in late_interaction.measure(run)["scores"].items()}

    return {
        "hub correction": hubs,
        "decisions": decisions,
        "denied words, precision@10": denied,
        "picture and words, precision@10": composed,
        "explanation, inside the thing": pointing,
        "late interaction, rank1": late,
    }


def spread(results: Mapping[str, Mapping[str, Numbers]]) -> Iterator[tuple[str, str, str]]:
    """Part, name, and mean ± deviation over seeds of each number."""
    seeds = list(results.values())
    for part in seeds[0]:
        for name in seeds[0][part]:
            values = [seed[part][name] for seed in seeds if part in seed]
            deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            yield part, name, f"{fmean(values):.3f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    parser.add_argument("--people", type=int, default=300, help="people of the pointing game")
    parser.add_argument("--out", type=Path, default=RESULTS / "answers_by_seed.json")
    arguments = parser.parse_args()
    settings = {"recipe": RECIPE, "set": arguments.set, "people": arguments.people}
    results: dict[str, Any] = {"what": "answers_by_seed", "settings": settings, "seeds": {}}
    if arguments.out.exists():
        results = json.loads(arguments.out.read_text())
        if results["settings"] != settings:
            parser.error(f"{arguments.out} has results of {results['settings']}; choose --out")
    for seed in arguments.seeds:
        done = results["seeds"].setdefault(str(seed), {})
        run, plan = trained(seed, arguments.set)
        for name, measured in parts(run, plan, arguments.people).items():
            if name not in done:
                done[name] = dict(measured())
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(tabulate(spread(results["seeds"]), headers=["part", "number", "mean ± deviation"]))


if __name__ == "__main__":
    main()
