"""What runs reached on the test split, by each rule that selects an epoch."""

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
        step: Optimiser steps done.
        metrics: Text to image, in percent.
    """

    rule: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one or more runs of a recipe reached.

    Attributes:
        runs: The run folders.
        reached: One list a run, with the same rules in the same order.
        expected: What their recipe states.
    """

    runs: tuple[Path, ...]
    reached: tuple[tuple[Reached, ...], ...]
    expected: Expected | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "runs": [str(run) for run in self.runs],
            "text_to_image": {
                same[0].rule: {
                    "steps": [one.step for one in same],
                    **{name: [one.metrics[name] for one in same] for name in SHOWN},
                }
                for same in zip(*self.reached, strict=True)
            },
        }

    def __str__(self) -> str:
        """Mean and, over several runs, sample standard deviation."""
        rows = [
            [
                same[0].rule,
                ", ".join(str(one.step) for one in same),
                *(_spread([one.metrics[name] for one in same]) for name in SHOWN),
            ]
            for same in zip(*self.reached, strict=True)
        ]
        table = tabulate(rows, headers=["test split", "steps", *SHOWN], disable_numparse=True)
        heading = f"{len(self.runs)} runs, mean ± deviation\n" if len(self.runs) > 1 else ""
        return f"{heading}{table}{self._order()}"

    def _order(self) -> str:
        """How to measure what is expected, where that is not an order by embeddings."""
        if self.expected is None or self.expected.rerank_by is None:
            return ""
        options = f"--rerank-k {self.expected.rerank_k} --rerank-by {self.expected.rerank_by}"
        return (
            f"\nThese are orders by embeddings alone. The expected rank1 of "
            f"{self.expected.rank1:g} is of re-ranked pictures; compare it with: "
            f"finegrain evaluate {self.runs[0]} --split test {options}"
        )


def report(runs: Sequence[Path]) -> Report:
    """Read what runs of one recipe, by several seeds, reached on the test split.

    Validation selects an epoch, and test reports it. Papers of this line mostly publish the
    epoch that was best on test, which is higher by luck: it is told apart by name. Where a
    dataset has no validation split, the last epoch stands for the selected one.

    Args:
        runs: Folders of runs that were trained with ``watch_test``.

    Raises:
        EvaluationError: A run has no test metrics, or the runs are of different recipes.
    """
    recipe = _check_one_recipe(runs)
    return Report(
        runs=tuple(runs),
        reached=tuple(_reached(run) for run in runs),
        expected=recipe.expected,
    )


def append_metrics(run: Path, *, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Add the metrics of one evaluation to a run's log, a line of JSON each."""
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")


def _reached(run: Path) -> tuple[Reached, ...]:
    val, test = _by_step(run, "val"), _by_step(run, "test")
    if not test:
        raise EvaluationError(
            f"{run} was not evaluated on test while it trained. Train it with "
            "--set watch_test=true, or see its selected checkpoint alone: "
            f"finegrain evaluate {run} --split test"
        )
    known = {step: metrics["rank1"] for step, metrics in val.items() if step in test}
    # max() takes the first of equals: the earliest epoch, as training itself does.
    fair = (ON_VALIDATION, max(known, key=known.__getitem__)) if known else (LAST, max(test))
    lucky = (ON_TEST, max(test, key=lambda step: test[step]["rank1"]))
    return tuple(Reached(rule=rule, step=step, metrics=test[step]) for rule, step in (fair, lucky))


def _by_step(run: Path, split: str) -> dict[int, dict[str, float]]:
    """Metrics of a split in order of steps; of a step that a resumed run repeated, the last."""
    try:
        lines = (run / FILE).read_text(encoding="utf-8").splitlines()
        parsed = [json.loads(line) for line in lines]
        found = {line["step"]: line for line in parsed if line["split"] == split}
        return {step: {name: found[step][name] for name in SHOWN} for step in sorted(found)}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{run / FILE} is damaged: {error!r}") from error


def _check_one_recipe(runs: Sequence[Path]) -> Recipe:
    first, *others = (load_recipe(run) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        differing = difference(first, replace(other, name=first.name, seed=first.seed))
        if differing:
            raise EvaluationError(
                f"{run} and {runs[0]} are of different recipes, so their mean means nothing; "
                f"they differ in {', '.join(differing)}"
            )
    return first


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {stdev(values):.2f}"
