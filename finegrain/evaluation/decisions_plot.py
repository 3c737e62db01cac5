"""Plots of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finegrain.errors import EvaluationError, require

if TYPE_CHECKING:
    from finegrain.evaluation.open_set import OpenSet

_COLORS = {"cosine": "0.55", "probability": "tab:blue"}
_LINES = {0.01: "--", 0.1: "-"}


def draw_reliability(bins: Sequence[tuple[float, float]], path: Path) -> None:
    """Draw the share of right matches by predicted probability.

    Args:
        bins: Mean probability and share of right matches of each bin.
        path: A new file; its suffix sets the format.

    Raises:
        EvaluationError: The file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure((4, 4))
    _reliability(figure.add_subplot(), [bins])
    _save(figure, path)


def draw_decisions(measured: Sequence[OpenSet], path: Path) -> None:
    """Draw the FNIR by size of the gallery, the reliability, and precision and recall.

    Args:
        measured: Decisions of models that differ in their seeds; each has a line.
        path: A new file; its suffix sets the format.

    Raises:
        EvaluationError: The file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure((12, 4))
    rates, bins, thresholds = figure.subplots(1, 3)
    for number, one in enumerate(measured):
        for score, color in _COLORS.items():
            for fpir, line in _LINES.items():
                points = [(at.size, 100 * at.fnir[fpir]) for at in one.rates
                          if at.score == score and at.strangers == "all"]  # fmt: skip
                label = f"{score}, FPIR {100 * fpir:g} %" if number == 0 else None
                if points:
                    rates.plot(
                        *zip(*points, strict=True), line, marker=".", color=color, label=label
                    )
        _threshold_lines(thresholds, one, with_labels=number == 0)
    rates.set(xscale="log", ylim=(0, 100), xlabel="pictures in the gallery", ylabel="FNIR in %")
    thresholds.set(xlim=(0, 1), ylim=(0, 1), xlabel="least probability of a match")
    for axes in (rates, thresholds):
        axes.grid(visible=True, color="0.92")
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    _reliability(bins, [[(b.probability, b.right) for b in one.bins] for one in measured])
    _save(figure, path)


def _threshold_lines(axes: Any, one: OpenSet, *, with_labels: bool) -> None:
    at = one.thresholds
    for name, color in (("precision", "tab:blue"), ("recall", "tab:orange"), ("f1", "tab:green")):
        values = [getattr(row, name) for row in at]
        label = name.replace("f1", "F1") if with_labels and at else None
        axes.plot([row.threshold for row in at], values, marker=".", color=color, label=label)


def _reliability(axes: Any, several: Sequence[Sequence[tuple[float, float]]]) -> None:
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="predicted probability",
        ylabel="share of right matches",
        aspect="equal",
    )
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    for bins in several:
        if bins:
            axes.plot(*zip(*bins, strict=True), marker="o", color="tab:blue")
    axes.grid(visible=True, color="0.92")


def _figure(size: tuple[float, float]) -> Any:
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"the plot cannot be written to {path}: {error}") from error
