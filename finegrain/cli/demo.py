"""Runs all of finegrain: renders people, trains a model, exports it, evaluates it and searches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import finegrain
from finegrain.cli.stages import Stages
from finegrain.data.datasets import SyntheticPeople
from finegrain.encoder import Encoder
from finegrain.errors import PlanError, RecipeError
from finegrain.evaluation.evaluation import Evaluation, evaluate
from finegrain.evaluation.probes import QueryPrecision, query_precision, swap_accuracy
from finegrain.exporters import export, load_profile
from finegrain.plan import Plan
from finegrain.preprocess import ImageSource
from finegrain.recipe import Recipe, difference, load_recipe
from finegrain.runs.checkpoint import MODEL, best_checkpoint, last_checkpoint, read_state
from finegrain.runtime.instructions import this_processor
from finegrain.runtime.processor import usable_instructions
from finegrain.search.searcher import Searcher
from finegrain.synthetic import (
    ATTRIBUTE_QUERIES,
    DETAIL_QUERIES,
    AttributeQuery,
    AttributeRecord,
    matches,
    read_attributes,
)
from finegrain.training import train
from finegrain.zoo.hub import digest

RECIPE, PROFILE = "quick_synthetic", "onnx_fp32"
QUERY = "woman in red coat"
MEASURED = "results/demo.json"
"""Results of a reference machine, in the folder ``benchmarks`` of a checkout."""
STAGES = ("draw people", "train", "export", "evaluate", "index", "query")
CHECKPOINT_MINUTES = 1.0
"""Maximum training time in minutes that an interruption of the demo loses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResults:
    """Results of the demo's model on people that are not in its training data.

    Attributes:
        evaluation: Metrics on the test split.
        precision: Precision of 20 attribute queries, according to the ground truth.
        detail_precision: Precision of 10 queries for details: colours of caps, shoes, hair and
            bags.
        swap_accuracy: Share of the captions of swap pairs whose score is above that of the
            caption with two colours exchanged; chance is 0.5.
        seconds: Wall-clock time of each stage, in seconds.
        cpu_seconds: CPU time of each stage in seconds, which depends less on other work of the
            machine.
        fast: Whether training was shortened.
    """

    evaluation: Evaluation
    precision: QueryPrecision
    detail_precision: QueryPrecision
    swap_accuracy: float
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
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
            "cpu_seconds": {name: round(value, 1) for name, value in self.cpu_seconds.items()},
            "processor": this_processor().name,
            "instructions": list(usable_instructions()),
            "processors": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": _load_average(),
        }


def _load_average() -> float | None:
    """Load of the last five minutes; above the number of cores, other work slowed down the demo."""
    return round(os.getloadavg()[1], 1) if hasattr(os, "getloadavg") else None


def run_demo(out: Path, *, fast: bool = False) -> DemoResults:
    """Run the demo, and write its results, plan, gallery and picture grid into ``out``.

    Args:
        out: Output folder.
        fast: Train on fewer people, as with the environment variable ``FINEGRAIN_FAST=1``.
    """
    fast = fast or os.environ.get("FINEGRAIN_FAST", "0") not in ("", "0")
    recipe = _shortened(load_recipe(RECIPE)) if fast else load_recipe(RECIPE)
    people = _people(recipe)
    root, plan = Path(people.root), out / "model.plan"
    folder = _run_folder(out, recipe)
    stages = Stages(_reference(fast=fast), _done_before(recipe, folder))

    with stages.stage("draw people", "pictures with captions, unless they exist already"):
        print(*people.splits().values(), sep="\n")
    with stages.stage("train", "two towers from random weights, on pictures and captions"):
        run = train(recipe, folder, resume=True, checkpoint_minutes=CHECKPOINT_MINUTES)
    with stages.stage("export", "ONNX graphs in one file, compared with the model"):
        print(_export(run.folder, plan))
    encoder = _RememberingEncoder.from_plan(Plan(plan))
    with stages.stage("evaluate", "queries on people that are not in the training data"):
        evaluation = evaluate(encoder, people, split="test")
        truths = [r for r in read_attributes(root) if r.split == "test"]
        precision = _precision(encoder, root, truths, ATTRIBUTE_QUERIES)
        details = _precision(encoder, root, truths, DETAIL_QUERIES)
        swap = people_swap_accuracy(encoder, root, truths)
        print(evaluation, precision, details, sep="\n\n")
        print(f"\nswap-pair accuracy {swap:.3f} (chance 0.5)")
    with stages.stage("index", "a gallery of the test pictures"), Searcher(plan) as searcher:
        print(
            searcher.add(
                [root / "imgs" / truth.file_path for truth in truths],
                [_columns(truth) for truth in truths],
            )
        )
    with stages.stage("query", f'"{QUERY}"'), Searcher(plan) as searcher:
        matches_of_query = searcher.query(QUERY)
        print(f'finegrain query {plan} "{QUERY}"\n\n{matches_of_query}')
        matches_of_query.save(out / "matches.png")
    results = DemoResults(
        evaluation=evaluation,
        precision=precision,
        detail_precision=details,
        swap_accuracy=swap,
        seconds={**stages.seconds, "all": sum(stages.seconds.values())},
        cpu_seconds={**stages.cpu_seconds, "all": sum(stages.cpu_seconds.values())},
        fast=fast,
    )
    (out / "results.json").write_text(json.dumps(results.to_dict(), indent=1) + "\n")
    print(
        f"\nfinished in {results.seconds['all']:.0f} s. Look at {out / 'matches.png'}, or search:"
    )
    print(f'  finegrain query {plan} "man with a backpack" --grid matches.png')
    return results


def _people(recipe: Recipe) -> SyntheticPeople:
    """The data of a recipe that trains on rendered people.

    Raises:
        RecipeError: The recipe trains on other data.
    """
    if not isinstance(recipe.data, SyntheticPeople):
        raise RecipeError(
            f"expected a recipe with data=SyntheticPeople(...) for the demo, got {recipe.name} "
            f"with {type(recipe.data).__name__}; train it with finegrain train"
        )
    return recipe.data


def _reference(*, fast: bool) -> dict[str, float]:
    """Measured seconds of each stage on a reference machine; a fast demo takes about a third."""
    package = Path(finegrain.__file__).parent
    installed = package / f"_{MEASURED}"
    measured = installed if installed.is_file() else package.parent / "benchmarks" / MEASURED
    seconds = json.loads(measured.read_text(encoding="utf-8"))["seconds"]
    return {name: seconds[name] / (3 if fast else 1) for name in STAGES}


def _done_before(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Share of each stage that an earlier run has done."""
    data = _people(recipe)
    pictures = (data.train + data.val + data.test) * data.pictures_per_identity
    drawn = sum(1 for _ in Path(data.root).glob("imgs/*/*.jpg")) / pictures
    last = last_checkpoint(folder)
    steps = recipe.schedule.epochs * (data.train * data.pictures_per_identity // recipe.batch_size)
    return {"draw people": min(1.0, drawn), "train": read_state(last).step / steps if last else 0.0}


def _run_folder(out: Path, recipe: Recipe) -> Path:
    """Folder of the run; an existing run of another recipe is renamed."""
    folder = out / recipe.name
    if last_checkpoint(folder) and difference(load_recipe(folder), recipe):
        numbers = (out / f"{recipe.name}.{number}" for number in count(1))
        new_path = next(path for path in numbers if not path.exists())
        folder.rename(new_path)
        print(f"{folder} was trained with another recipe; it is now {new_path}")
    return folder


def _export(run: Path, plan: Path) -> str:
    """Export a run, unless the existing plan has its weights and was made by this version."""
    checkpoint = digest(best_checkpoint(run) / MODEL)
    try:
        manifest = Plan(plan).manifest
        if (manifest.checkpoint, manifest.made_by) == (checkpoint, version("finegrain")):
            return f"{plan} exists and has these weights"
    except PlanError:
        pass  # the plan does not exist, is damaged or has an older format
    # A gallery of other weights cannot be used, nor can the files that a killed run left.
    for file in plan.parent.glob(f"{plan.stem}.gallery*"):
        file.unlink()
    return str(export(run, load_profile(PROFILE), plan))


class _RememberingEncoder(Encoder):
    """Encodes each picture once, although several stages need it."""

    def encode_images(
        self, sources: Sequence[ImageSource], *, progress: bool = False
    ) -> NDArray[np.float32]:
        cache: dict[str, NDArray[np.float32]] = self.__dict__.setdefault("_cache", {})
        names = [str(source) for source in sources]
        new = [name for name in dict.fromkeys(names) if name not in cache]
        cache.update(zip(new, super().encode_images(new, progress=progress), strict=True))
        return np.stack([cache[name] for name in names])


def _shortened(recipe: Recipe) -> Recipe:
    """Reduce the people and the training to a third; the model is less accurate."""
    people = _people(recipe)
    return replace(
        recipe,
        name=f"{recipe.name}_fast",
        data=replace(people, root=f"{people.root}-fast", train=600, val=50, test=300),
    )


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
    """The ground truth as columns for filters, and as a description in the column ``about``."""
    a = truth.attributes
    worn = [f"{a[f'{slot}_color']} {a[slot]}" for slot in ("upper", "lower") if a[slot]]
    about = ", ".join([str(a["gender"]), *worn])
    return {"about": about, **a, "pid": truth.id}


def _is_right(predicate: Any, attributes: Any) -> bool:
    return matches(attributes, predicate)


def people_swap_accuracy(encoder: Encoder, root: Path, truths: list[AttributeRecord]) -> float:
    """Swap accuracy over the captions of swap pairs that name both exchanged colours.

    Args:
        encoder: Encoder of the model.
        root: Folder of rendered people.
        truths: Ground truth of the pictures to use.
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
