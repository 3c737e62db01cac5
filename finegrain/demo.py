"""The main job from end to end: people are drawn, a model is trained, checked, and searched."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from finegrain.data.datasets import SyntheticPeople
from finegrain.data.synthetic import (
    ATTRIBUTE_QUERIES,
    DETAIL_QUERIES,
    AttributeQuery,
    AttributeRecord,
    matches,
    read_attributes,
)
from finegrain.encoder import Encoder
from finegrain.errors import RecipeError
from finegrain.evaluation import Evaluation, evaluate
from finegrain.exporters import export, load_profile
from finegrain.plan import Plan
from finegrain.probes import QueryPrecision, query_precision, swap_accuracy
from finegrain.recipe import Recipe, load_recipe
from finegrain.searcher import Searcher
from finegrain.training import train

RECIPE = Path("recipes/tiny_synthetic.py")
PROFILE = Path("export/onnx_fp32.py")
QUERY = "woman in red coat"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResults:
    """What the demo's model reaches on people it never saw.

    Attributes:
        evaluation: On the test split.
        precision: Of twenty attribute queries, by ground truth.
        detail_precision: Of ten queries for smaller things: caps, shoes, hair, bags by colour.
        swap_accuracy: How often the true caption of a picture beats the one with two colours
            exchanged, on swap pairs; chance is 0.5.
        seconds: Wall-clock time of each part.
        fast: Whether training was cut short by ``FINEGRAIN_FAST=1``.
    """

    evaluation: Evaluation
    precision: QueryPrecision
    detail_precision: QueryPrecision
    swap_accuracy: float
    seconds: dict[str, float]
    fast: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "fast": self.fast,
            **self.evaluation.to_dict(),
            "precision_at_10": round(self.precision.mean, 4),
            "precision_at_10_by_query": dict(self.precision.precision),
            "relevant_by_query": dict(self.precision.num_relevant),
            "detail_precision_at_10": round(self.detail_precision.mean, 4),
            "detail_precision_at_10_by_query": dict(self.detail_precision.precision),
            "detail_relevant_by_query": dict(self.detail_precision.num_relevant),
            "swap_accuracy": round(self.swap_accuracy, 4),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "processors": os.cpu_count(),
        }


def run_demo(out: Path, *, fast: bool = False) -> DemoResults:
    """Run the main job and write its results, plan, gallery and picture grid into ``out``.

    Raises:
        RecipeError: The current folder is not a checkout of finegrain.
    """
    if not RECIPE.is_file():
        raise RecipeError(f"the demo trains {RECIPE}: run it in a checkout of finegrain")
    fast = fast or os.environ.get("FINEGRAIN_FAST", "0") not in ("", "0")
    recipe = _shortened(load_recipe(RECIPE)) if fast else load_recipe(RECIPE)
    assert isinstance(recipe.data, SyntheticPeople)
    seconds: dict[str, float] = {}
    step = partial(_step, seconds)
    plan = out / "model.plan"
    plan.with_suffix(".gallery").unlink(missing_ok=True)

    with step("draw people"):
        print(*recipe.data.splits().values(), sep="\n")
    with step("train"):
        run = train(recipe, out / recipe.name, resume=True)
    with step("export"):
        print(export(run.folder, load_profile(PROFILE), plan))
    encoder = Encoder.from_plan(Plan(plan))
    with step("evaluate on people never seen"):
        evaluation = evaluate(encoder, recipe.data, split="test")
        truths = [r for r in read_attributes(recipe.data.root) if r.split == "test"]
        precision = _precision(encoder, Path(recipe.data.root), truths, ATTRIBUTE_QUERIES)
        details = _precision(encoder, Path(recipe.data.root), truths, DETAIL_QUERIES)
        swap = people_swap_accuracy(encoder, Path(recipe.data.root), truths)
        print(evaluation, precision, details, sep="\n\n")
        print(f"\nswap-pair accuracy {swap:.3f} (chance 0.5)")
    with step("index"), Searcher(plan) as searcher:
        images = Path(recipe.data.root) / "imgs"
        print(
            searcher.add(
                [images / truth.file_path for truth in truths],
                [_columns(truth) for truth in truths],
            )
        )
    with step("query"), Searcher(plan) as searcher:
        found = searcher.query(QUERY)
        print(f'finegrain query {plan} "{QUERY}"\n\n{found}')
        found.save(out / "matches.png")
    results = DemoResults(
        evaluation=evaluation,
        precision=precision,
        detail_precision=details,
        swap_accuracy=swap,
        seconds={**seconds, "all": sum(seconds.values())},
        fast=fast,
    )
    (out / "results.json").write_text(json.dumps(results.to_dict(), indent=1) + "\n")
    print(
        f"\nin {results.seconds['all']:.0f} s. Look at {out / 'matches.png'}, and ask it yourself:"
    )
    print(f'  finegrain query {plan} "man with a backpack" --grid matches.png')
    return results


def _shortened(recipe: Recipe) -> Recipe:
    """A third of the people and of the training: it runs through, and finds less."""
    assert isinstance(recipe.data, SyntheticPeople)
    return replace(
        recipe,
        name=f"{recipe.name}_fast",
        data=replace(recipe.data, root=f"{recipe.data.root}-fast", train=600, val=50, test=300),
    )


@contextmanager
def _step(seconds: dict[str, float], name: str) -> Iterator[None]:
    print(f"\n── {name} " + "─" * (76 - len(name)), flush=True)
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _precision(
    encoder: Encoder,
    root: Path,
    truths: list[AttributeRecord],
    queries: Sequence[AttributeQuery],
) -> QueryPrecision:
    tests: dict[str, Callable[[Any], bool]] = {
        query.text: partial(_is_right, query.predicate) for query in queries
    }
    pictures = [root / "imgs" / truth.file_path for truth in truths]
    return query_precision(encoder, pictures, [t.attributes for t in truths], tests)


def _columns(truth: AttributeRecord) -> dict[str, str | int | bool | None]:
    """The truth as columns to filter by, and in one line to read."""
    a = truth.attributes
    worn = [f"{a[f'{slot}_color']} {a[slot]}" for slot in ("upper", "lower") if a[slot]]
    about = ", ".join([str(a["gender"]), *worn])
    return {"about": about, **a, "pid": truth.id}


def _is_right(predicate: Any, attributes: Any) -> bool:
    return matches(attributes, predicate)


def people_swap_accuracy(encoder: Encoder, root: Path, truths: list[AttributeRecord]) -> float:
    """Swap accuracy over pictures of swap pairs, each caption that names both exchanged colours.

    Args:
        root: A folder of rendered people.
        truths: Those of its pictures that are asked about.
    """
    trials = [
        (root / "imgs" / truth.file_path, caption, swapped)
        for truth in truths
        if truth.swap_id is not None
        for caption, swapped in zip(truth.captions, truth.swapped_captions, strict=True)
        if swapped is not None
    ]
    pictures, captions, swapped = zip(*trials, strict=True)
    return swap_accuracy(encoder, pictures, captions, swapped)
