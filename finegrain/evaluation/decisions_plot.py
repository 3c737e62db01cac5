"""A plot of the reliability of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finegrain.errors import require


def draw_reliability(bins: Sequence[tuple[float, float]], path: Path) -> None:
    """Draw the share of right matches by predicted probability.

    Args:
        bins: Mean probability and share of right matches of each bin.
        path: A new file; its suffix sets the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="predicted probability",
        ylabel="share of right matches",
        aspect="equal",
    )
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    axes.plot(*zip(*bins, strict=True), marker="o", color="tab:blue")
    axes.grid(visible=True, color="0.92")
    figure.savefig(path, dpi=110)
