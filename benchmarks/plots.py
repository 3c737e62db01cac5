"""Plot results of benchmarks for the documentation.

``python benchmarks/plots.py`` writes a PNG beside each of two files: ``gallery_growth.json``,
written by ``pytest benchmarks/bench_gallery_growth.py --results benchmarks/results``, and
``rerank_curve.json``, written by ``python benchmarks/rerank_curve.py RUN``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

RESULTS = Path(__file__).parent / "results"
DOTS_AN_INCH = 110
NUM_COLOURS = 64
COLOURS = {
    "finegrain": "#c2410c",
    "faiss flat": "#1d4ed8",
    "numpy": "#15803d",
    "milvus-lite": "#7e22ce",
    "RaBitQ": "#f59e0b",
    "Ivf": "#0f766e",
    "Hnsw": "#57534e",
    "vectors alone": "#57534e",
    "both": "#c2410c",
    "head alone": "#1d4ed8",
}
CHANGES = {
    "build_s": "fill",
    "open_s": "open and first search",
    "add_1000_s": "add 1,000 and search",
    "delete_100_s": "delete 100 for good and search",
}

ByRows = Mapping[int, Mapping[str, Any]]


def growth(exact: ByRows, approximate: ByRows) -> Figure:
    """Times of queries, filtered queries and changes by number of rows, on logarithmic axes."""
    figure = Figure(figsize=(13, 4.2), dpi=DOTS_AN_INCH)
    queries, filtered, changes = figure.subplots(1, 3)
    for name in ("finegrain", "faiss flat", "numpy"):
        _line(queries, _by_rows(exact, "query_ms", name), name, COLOURS[name])
        _line(filtered, _by_rows(exact, "filtered_ms", name), name, COLOURS[name])
    for axes, subject in ((queries, "query_ms"), (filtered, "filtered_ms")):
        _line(axes, _by_rows(exact, "milvus-lite", subject), "milvus-lite", COLOURS["milvus-lite"])
    for kind in ("RaBitQ", "Ivf", "Hnsw"):
        points = _by_rows(approximate, kind, "query_ms", "approximate")
        _line(queries, points, f"{kind}, recall 0.99", COLOURS[kind], style="--")
    for subject, name in CHANGES.items():
        _line(changes, _by_rows(exact, subject), name)
    _finish(queries, "a text query, k = 10", "milliseconds")
    _finish(filtered, "with a filter for one row in 100", "milliseconds")
    _finish(changes, "finegrain: filling, opening, changing", "seconds")
    figure.tight_layout()
    return figure


def _by_rows(measured: ByRows, *keys: str) -> dict[int, float]:
    """A measurement by number of rows, for the sizes that have it."""
    result: dict[int, float] = {}
    for rows, value in measured.items():
        inner: Any = value
        for key in keys:
            inner = inner.get(key, {})
        if inner != {}:
            result[rows] = inner
    return result


def _line(
    axes: Axes, points: Mapping[int, float], name: str, colour: str | None = None, style: str = "-"
) -> None:
    if points:
        rows = sorted(points)
        times = [points[count] for count in rows]
        axes.plot(rows, times, style, marker="o", markersize=4, color=colour, label=name)


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel="pictures in the gallery", ylabel=unit, title=title)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)


def _read(path: Path) -> ByRows:
    if not path.is_file():
        return {}
    by_rows = json.loads(path.read_text())["by_rows"]
    return {int(rows): measured for rows, measured in by_rows.items()}


def rerank_curve(measured: Mapping[str, Any]) -> Figure:
    """The metric of re-ranking as a function of its time, for several numbers of candidates."""
    figure = Figure(figsize=(7, 4.2), dpi=DOTS_AN_INCH)
    axes = figure.subplots()
    first = measured["vectors alone"]
    axes.axhline(first["rank1"], linestyle=":", linewidth=1, color=COLOURS["vectors alone"])
    axes.plot(
        first["ms"], first["rank1"], "o", color=COLOURS["vectors alone"], label="vectors alone"
    )
    for name, label in (("both", "both stages"), ("head alone", "match head alone")):
        depths = measured[name].values()
        times, ranks = [at["ms"] for at in depths], [at["rank1"] for at in depths]
        axes.plot(times, ranks, marker="o", markersize=4, color=COLOURS[name], label=label)
        for depth, ms, rank1 in zip(measured[name], times, ranks, strict=True):
            axes.annotate(
                depth, (ms, rank1), xytext=(0, 6), textcoords="offset points", ha="center",
                fontsize=8, color=COLOURS[name],
            )  # fmt: skip
    axes.set(
        xscale="log",
        xlabel="milliseconds a query",
        ylabel="rank1, percent",
        title=f"{measured['gallery']:,} pictures, the first k of each query re-ranked",
    )
    axes.margins(y=0.12)
    # By default a logarithmic axis has labels at powers of ten only, and this one spans less than
    # two.
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # A palette reduces the file to a third of its size.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(NUM_COLOURS).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    folder: Path = parser.parse_args().results
    exact = _read(folder / "gallery_growth.json")
    curve = folder / "rerank_curve.json"
    if exact:
        approximate = _read(folder / "gallery_approximate.json")
        _save(growth(exact, approximate), folder / "gallery_growth.png")
    if curve.is_file():
        _save(rerank_curve(json.loads(curve.read_text())), curve.with_suffix(".png"))
    if not exact and not curve.is_file():
        raise SystemExit(
            f"there are no results in {folder}: run the commands at the head of this file"
        )


if __name__ == "__main__":
    main()
