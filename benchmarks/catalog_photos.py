"""Train ``recipes/catalog_photos.py`` and evaluate it on the validation photographs.

    python benchmarks/catalog_photos.py --root PATH [--out runs/catalog_photos]

Writes the precision@10 of the label queries to ``benchmarks/results/catalog_photos.json``, and a
plan with an indexed gallery to the run folder.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import finegrain
from finegrain.encoder import Encoder
from finegrain.evaluation.probes import query_precision
from finegrain.exporters import load_profile
from finegrain.plan import Plan

ROOT = Path(__file__).parents[1]


def _has_label(label: str, truth: Any) -> bool:
    return bool(truth["label"] == label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of labels.csv and the pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/catalog_photos"))
    arguments = parser.parse_args()
    recipe = finegrain.load_recipe(
        ROOT / "recipes" / "catalog_photos.py", [f"data.root={arguments.root}"]
    )
    start = time.perf_counter()
    run = finegrain.train(recipe, arguments.out)
    minutes = (time.perf_counter() - start) / 60
    plan = arguments.out / "model.plan"
    print(finegrain.export(run.folder, load_profile(ROOT / "export" / "onnx_fp32.py"), plan))
    samples = recipe.data.splits()["val"].samples
    labels = sorted({str(sample.metadata["label"]) for sample in samples})
    measured = query_precision(
        Encoder.from_plan(Plan(plan)),
        [sample.image for sample in samples],
        [sample.metadata for sample in samples],
        {label: partial(_has_label, label) for label in labels},
    )
    print(measured)
    with finegrain.Searcher(plan) as searcher:
        print(searcher.add_samples(samples))
    result = {
        "mean": round(measured.mean, 4),
        "precision": dict(measured.precision),
        "relevant": dict(measured.num_relevant),
        "minutes": round(minutes, 1),
        "validation": run.validation.to_dict() if run.validation else None,
    }
    out = ROOT / "benchmarks" / "results" / "catalog_photos.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
