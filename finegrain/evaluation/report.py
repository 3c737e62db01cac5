"""Test metrics of runs, by each rule that selects an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from tabulate import tabulate

from finegrain.errors import EvaluationError
from finegrain.recipe import Expected, Recipe, difference, load_recipe

FILE = "metrics.jsonl"
SHOWN = ("rank1", "rank5", "rank10", "mAP", "mINP")
ON_VALIDATION = "selected on validation"
LAST = "last epoch"
ON_TEST = "selected on test (as published)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Test metrics of one run at one step.

    Attributes:
        rule: How the step was selected.
        step: Number of optimiser steps done.
        metrics: Text-to-image metrics, in percent.
    """

    rule: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Test metrics of one or more runs of a recipe.

    Attributes:
        runs: The run folders.
        reached: One tuple per run, with the same rules in the same order.
        expected: The metrics that their recipe states.
    """

    runs: tuple[Path, ...]
    reached: tuple[tuple[Reached, ...], ...]
    expected: Expected | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "runs": [str(run) for run in self.runs],
            "text_to_image": {
                by_run[0].rule: {
                    "steps": [reached.step for reached in by_run],
                    **{name: [reached.metrics[name] for reached in by_run] for name in SHOWN},
                }
                for by_run in zip(*self.reached, strict=True)
            },
        }

    def __str__(self) -> str:
        """A table of means, with the sample standard deviation over several runs."""
        rows = [
            [
                by_run[0].rule,
                ", ".join(str(reached.step) for reached in by_run),
                *(_spread([reached.metrics[name] for reached in by_run]) for name in SHOWN),
            ]
            for by_run in zip(*self.reached, strict=True)
        ]
        table = tabulate(rows, headers=["test split", "steps", *SHOWN], disable_numparse=True)
        heading = f"{len(self.runs)} runs, mean ± deviation\n" if len(self.runs) > 1 else ""
        return f"{heading}{table}{self._order()}"

    def _order(self) -> str:
        """The command that compares with the expected metrics, where those are re-ranked."""
        if self.expected is None or self.expected.rerank_by is None:
            return ""
        options = f"--rerank-k {self.expected.rerank_k} --rerank-by {self.expected.rerank_by}"
        return (
            f"\nThese metrics are of embeddings alone. The expected rank1 of "
            f"{self.expected.rank1:g} is after re-ranking; compare it with: "
            f"finegrain evaluate {self.runs[0]} --split test {options}"
        )


def report(runs: Sequence[Path]) -> Report:
    """Read the test metrics of runs of one recipe that differ in their seeds.

    The validation split selects an epoch, and its test metrics are reported. Papers on person
    search mostly publish the epoch that was best on test, which is higher by luck; the report
    shows it under another name. A dataset without a validation split reports the last epoch.

    Args:
        runs: Folders of runs that were trained with ``watch_test``.

    Returns:
        Metrics in percent, by run and by rule.

    Raises:
        EvaluationError: A run has no test metrics, or the runs are of different recipes.
    """
    recipe = check_one_recipe(runs)
    return Report(
        runs=tuple(runs),
        reached=tuple(_reached(run) for run in runs),
        expected=recipe.expected,
    )


def improvement(run: Path) -> str:
    """A table of a run's validation metrics: starting weights, best step, and the difference.

    Raises:
        EvaluationError: The starting weights were not evaluated.
    """
    by_step = metrics_by_step(run, "val")
    if 0 not in by_step:
        raise EvaluationError(
            f"{run} did not evaluate its starting weights; train with "
            "--set schedule.evaluate_first=true"
        )
    best = max(by_step, key=lambda step: by_step[step]["rank1"])
    before, after = by_step[0], by_step[best]
    rows = [
        ("starting weights", *(before[name] for name in SHOWN)),
        (f"best checkpoint, step {best}", *(after[name] for name in SHOWN)),
        ("difference", *(after[name] - before[name] for name in SHOWN)),
    ]
    return tabulate(rows, headers=["validation, text to image", *SHOWN], floatfmt=".2f")


def append_metrics(run: Path, *, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Append the metrics of one evaluation to a run's log, as one line of JSON."""
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")


def _reached(run: Path) -> tuple[Reached, ...]:
    val, test = metrics_by_step(run, "val"), metrics_by_step(run, "test")
    if not test:
        raise EvaluationError(
            f"expected test metrics in {run / FILE}, got none: {run} was not evaluated on test "
            "while it trained. Train it with --set watch_test=true, or evaluate its selected "
            f"checkpoint: finegrain evaluate {run} --split test"
        )
    val_rank1 = {step: metrics["rank1"] for step, metrics in val.items() if step in test}
    # max() returns the first of equal values, the earliest epoch, as training itself does.
    selected = (
        (ON_VALIDATION, max(val_rank1, key=val_rank1.__getitem__))
        if val_rank1
        else (LAST, max(test))
    )
    best_on_test = (ON_TEST, max(test, key=lambda step: test[step]["rank1"]))
    return tuple(
        Reached(rule=rule, step=step, metrics=test[step]) for rule, step in (selected, best_on_test)
    )


def metrics_by_step(run: Path, split: str) -> dict[int, dict[str, float]]:
    """Metrics of a split by step. Where a resumed run repeated a step, the last line counts."""
    try:
        lines = (run / FILE).read_text(encoding="utf-8").splitlines()
        parsed = [json.loads(line) for line in lines]
        by_step = {line["step"]: line for line in parsed if line["split"] == split}
        return {step: {name: by_step[step][name] for name in SHOWN} for step in sorted(by_step)}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{run / FILE} is damaged: {error!r}") from error


def check_one_recipe(runs: Sequence[Path]) -> Recipe:
    """The recipe of runs that differ in their seeds.

    Raises:
        EvaluationError: They differ in more.
    """
    first, *others = (load_recipe(run) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        differing = difference(first, replace(other, name=first.name, seed=first.seed))
        if differing:
            raise EvaluationError(
                f"expected runs of one recipe, got {run} and {runs[0]}, which differ in "
                f"{', '.join(differing)}. Report them one by one."
            )
    return first


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {stdev(values):.2f}"
