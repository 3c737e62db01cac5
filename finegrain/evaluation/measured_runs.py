"""Test metrics of runs with and without hub correction, and their decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from tabulate import tabulate

from finegrain.evaluation.decisions_plot import draw_decisions
from finegrain.evaluation.evaluation import Evaluation, evaluate
from finegrain.evaluation.open_set import OpenSet, open_set


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRuns:
    """Measurements of the selected checkpoints of runs that differ in their seeds.

    Attributes:
        runs: The run folders.
        evaluations: Rank metrics of each.
        decisions: Metrics of decisions of each.
    """

    runs: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]
    decisions: tuple[OpenSet, ...]

    def to_dict(self) -> dict[str, object]:
        return {
            "runs": [str(run) for run in self.runs],
            "evaluations": [evaluation.to_dict() for evaluation in self.evaluations],
            "decisions": [decisions.to_dict() for decisions in self.decisions],
        }

    def plot(self, path: Path) -> None:
        """Draw the decisions of all runs; see :func:`draw_decisions`."""
        draw_decisions(self.decisions, path)

    def __str__(self) -> str:
        by_run = [
            dict(_numbers(*both)) for both in zip(self.evaluations, self.decisions, strict=True)
        ]
        shared = [name for name in by_run[0] if all(name in numbers for numbers in by_run)]
        rows = [(name, _spread([numbers[name] for numbers in by_run])) for name in shared]
        split = self.evaluations[0].split
        return tabulate(rows, headers=[f"{split} split, {len(self.runs)} runs", "mean ± deviation"],
                        disable_numparse=True)  # fmt: skip


def measure_runs(runs: Sequence[Path], *, split: str = "test") -> MeasuredRuns:
    """Evaluate the selected checkpoint of each run.

    Args:
        runs: The run folders.
        split: Name of the split.

    Raises:
        DataError: The dataset of a run cannot be read, or has no such split.
        CheckpointError: A run has no checkpoint.
        EvaluationError: The split has too few pictures.
    """
    return MeasuredRuns(
        runs=tuple(runs),
        evaluations=tuple(evaluate(run, split=split) for run in runs),
        decisions=tuple(open_set(run, split=split) for run in runs),
    )


def _numbers(evaluation: Evaluation, decisions: OpenSet) -> Iterator[tuple[str, float]]:
    for name, metrics in (
        ("without hub correction", evaluation.text_to_image),
        ("with hub correction", evaluation.hub_corrected),
    ):
        if metrics is not None:
            yield f"rank1 {name}", metrics.rank1
            yield f"mAP {name}", metrics.mAP
    for at in decisions.rates:
        for fpir, rate in at.fnir.items():
            where = f"{at.size} pictures, {at.strangers} strangers, {at.score}"
            yield f"FNIR at FPIR {100 * fpir:g} %, {where}", 100 * rate
    for row in decisions.thresholds:
        yield f"precision at probability {row.threshold:g}", 100 * row.precision
        yield f"recall at probability {row.threshold:g}", 100 * row.recall
        yield f"F1 at probability {row.threshold:g}", 100 * row.f1
    for label, value in (("Brier score", decisions.brier), ("NDCG@10", decisions.ndcg)):
        if value is not None:
            yield label, value


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {stdev(values):.3f}"
