"""Write the README's numbers from the files that commands wrote.

Each block between ``<!-- numbers:NAME -->`` and ``<!-- /numbers -->`` is replaced by the
table that :data:`TABLES` makes of files in ``benchmarks/results``. With ``--check`` nothing is
written, and the exit status says whether the README is up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- numbers:(\w+) -->\n).*?(<!-- /numbers -->)", re.DOTALL)
Result = Mapping[str, Any]


def demo(result: Result) -> str:
    text_to_image = result["text_to_image"]
    rows = [
        ("precision@10, mean of 20 attribute queries", f"{result['precision_at_10']:.3f}"),
        (
            "precision@10, mean of 10 queries for caps, shoes, hair, bags by colour",
            f"{result['detail_precision_at_10']:.3f}",
        ),
        ("swap-pair accuracy (chance 0.5)", f"{result['swap_accuracy']:.3f}"),
        *((name, f"{text_to_image[name]:.1f} %") for name in ("rank1", "rank5", "rank10")),
        *((name, f"{text_to_image[name]:.1f} %") for name in ("mAP", "mINP")),
        ("captions that search / pictures searched", _sizes(text_to_image)),
        ("whole demo", f"{result['seconds']['all']:.0f} s on {result['processors']} cores"),
    ]
    return _table(rows, ["on people never seen in training", ""])


def demo_queries(result: Result) -> str:
    rows = [
        (query, f"{precision:.1f}", result["relevant_by_query"][query])
        for query, precision in result["precision_at_10_by_query"].items()
    ]
    rows += [
        (query, f"{precision:.1f}", result["detail_relevant_by_query"][query])
        for query, precision in result["detail_precision_at_10_by_query"].items()
    ]
    return _table(rows, ["query", "precision@10", "right pictures in the gallery"])


def catalog_photos(result: Result) -> str:
    rows = [(q, f"{p:.1f}", result["relevant"][q]) for q, p in result["precision"].items()]
    rows.append(("**mean**", f"**{result['mean']:.2f}**", f"trained {result['minutes']:.0f} min"))
    return _table(rows, ["query", "precision@10", "pictures of it"])


def query_latency(fp32: Result, int8: Result) -> str:
    rows = [
        (f"`Searcher.query`, {name}", f"{result['p50_ms']['finegrain']:.1f} ms", _times(result))
        for name, result in (("`cpu_int8`", int8), ("`onnx_fp32`", fp32))
    ]
    rows.append(("the plain way", f"{fp32['p50_ms']['plain']:.1f} ms", ""))
    head = f"{fp32['gallery']:,} rows, {fp32['model']}"
    return _table(rows, [head, "p50", "the plain way takes"])


def _times(result: Result) -> str:
    return f"{result['ratio']:.1f} times as long"


def evaluation(result: Result) -> str:
    seconds, peak = result["seconds"], result["peak_mb"]
    rows = [
        ("finegrain", f"{seconds['finegrain']:.1f} s", f"{peak['finegrain']:,} MB"),
        ("the plain way", f"{seconds['plain']:.1f} s", f"{peak['plain']:,} MB"),
        ("ratio", f"{result['ratio']:.1f}", f"{1 / result['memory_share']:.0f}"),
    ]
    count = f"{result['queries']:,}"
    return _table(rows, [f"{count} captions x {count} pictures", "time", "memory beyond its input"])


def training(result: Result) -> str:
    rate = result["pictures_per_second"]
    rows = [
        ("finegrain", f"{rate['finegrain']:.2f}"),
        ("the plain way", f"{rate['plain']:.2f}"),
        ("ratio", f"{result['ratio']:.2f}"),
    ]
    return _table(rows, [f"{result['model']}, batch {result['batch']}, 2 cores", "pictures/s"])


def study(result: Result) -> str:
    """Mean and sample standard deviation over seeds."""
    metrics = list(next(iter(result["rows"].values())))
    rows = [
        (row, *(f"{fmean(values[m]):.1f} ± {stdev(values[m]):.1f}" for m in metrics))
        for row, values in result["rows"].items()
    ]
    return _table(rows, ["people never seen, 3 seeds", *metrics])


def _sizes(metrics: Result) -> str:
    return f"{metrics['num_queries']:,} / {metrics['num_gallery']:,}"


def _table(rows: list[tuple[Any, ...]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


TABLES: Mapping[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "demo": (demo, ("demo",)),
    "demo_queries": (demo_queries, ("demo",)),
    "catalog_photos": (catalog_photos, ("catalog_photos",)),
    "query_latency": (query_latency, ("query_onnx_fp32", "query_cpu_int8")),
    "evaluation": (evaluation, ("evaluation",)),
    "training": (training, ("training",)),
    "irra_losses": (study, ("irra_losses",)),
    "noisy_captions": (study, ("noisy_captions",)),
}


def render(readme: str) -> str:
    """The README with every block of numbers made anew."""

    def block(match: re.Match[str]) -> str:
        table, files = TABLES[match[2]]
        results = [json.loads((RESULTS / f"{file}.json").read_text()) for file in files]
        return f"{match[1]}{table(*results)}{match[3]}"

    return BLOCK.sub(block, readme)


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    made = render(readme)
    if "--check" in sys.argv[1:]:
        return int(made != readme)
    path.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
