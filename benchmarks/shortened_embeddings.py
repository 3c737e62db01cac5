"""Rank1 of plans with shortened embeddings, on the test split.

    python benchmarks/shortened_embeddings.py runs/quick_synthetic

Exports a run at several widths, as ``finegrain export --dim`` does, and evaluates each plan on the
test split of the run's dataset. The projections are fitted on other splits. Writes
``benchmarks/results/shortened_embeddings.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import finegrain
from finegrain.exporters import ExportProfile
from finegrain.recipe import load_recipe

ROOT = Path(__file__).parents[1]


def measure(run: Path, dim: int | None) -> dict[str, Any]:
    """Width, rank1 and mAP of a plan."""
    with TemporaryDirectory() as folder:
        plan = Path(folder) / "short.plan"
        finegrain.export(run, ExportProfile(name="onnx_fp32"), plan, dim=dim)
        metrics = finegrain.evaluate(plan, load_recipe(run).data, split="test").text_to_image
    return {"dim": dim, "rank1": metrics.rank1, "mAP": metrics.mAP}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 32, 16])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    rows = []
    for dim in (None, *arguments.dims):
        rows.append(measure(arguments.run, dim))
        print(json.dumps(rows[-1]), flush=True)
    width = load_recipe(arguments.run).method.embed_dim
    result = {
        "what": "shortened_embeddings",
        "run": arguments.run.name,
        "width": width,
        "plans": rows,
    }
    file = arguments.out / "shortened_embeddings.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
