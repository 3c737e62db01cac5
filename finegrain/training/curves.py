"""The course of a training: its losses in ``curves.csv``, and a picture of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from finegrain.evaluation.report import metrics_by_step

TABLE, PICTURE = "curves.csv", "curves.png"
SHOWN = ("rank1", "rank10", "mAP")

_WINDOW = 0.02
"""Steps that a point of the smoothed loss is the mean of, as a share of all."""


class Curves:
    """Writes a row with the losses of each step, and draws them on demand.

    Args:
        run: The run folder.
        start: Number of steps done. Rows of later steps, which an interrupted run wrote after
            its last checkpoint, are removed.
    """

    def __init__(self, run: Path, *, start: int) -> None:
        self._run = run
        rows = [row for row in read_curves(run) if row["step"] <= start]
        self._file = (run / TABLE).open("w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None
        for row in rows:
            self._write(row)

    def add(self, step: int, lr: float, losses: Mapping[str, float]) -> None:
        """Write the learning rate and the unweighted losses of a step."""
        self._write({"step": step, "lr": lr, **losses})

    def draw(self) -> None:
        """Draw the losses, and the metrics on the validation split, into ``curves.png``."""
        self._file.flush()
        rows = read_curves(self._run)
        if rows:
            figure = _figure(rows, metrics_by_step(self._run, "val"))
            figure.savefig(self._run / PICTURE)

    def close(self) -> None:
        self._file.close()

    def _write(self, row: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, fieldnames=list(row))
            self._writer.writeheader()
        self._writer.writerow(row)


def read_curves(run: Path) -> list[dict[str, float]]:
    """The rows of ``curves.csv``; a row that an interruption cut is left out."""
    if not (run / TABLE).is_file():
        return []
    rows = []
    with (run / TABLE).open(newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            try:
                row = {name: float(cell) for name, cell in cells.items()}
            except (TypeError, ValueError):
                continue
            rows.append({**row, "step": int(row["step"])})
    return rows


def _figure(
    rows: Sequence[Mapping[str, float]], validation: Mapping[int, Mapping[str, float]]
) -> Figure:
    figure = Figure(figsize=(11, 4), dpi=110)  # without pyplot, whose figures are global
    losses, metrics = figure.subplots(1, 2)
    steps = [row["step"] for row in rows]
    for name in (name for name in rows[0] if name not in ("step", "lr")):
        values = np.array([row[name] for row in rows])
        (line,) = losses.plot(steps, values, linewidth=0.6, alpha=0.3)
        window = max(1, round(_WINDOW * len(values)))
        smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
        losses.plot(steps[window - 1 :], smooth, color=line.get_color(), label=name)
    for name in SHOWN:
        if validation:
            points = [by_name[name] for by_name in validation.values()]
            metrics.plot(list(validation), points, marker="o", label=name)
    for axes, title in ((losses, "losses"), (metrics, "validation, text to image (%)")):
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.tight_layout()
    return figure
