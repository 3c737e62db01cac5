"""What re-ranking gives and costs: rank1 and milliseconds by how many pictures are looked at.

    python benchmarks/rerank_curve.py runs/rasa_synthetic

Exports the run, chooses the weight of a match on the validation split, and searches the test
split by every caption. For each depth it also shows how many candidates the head really scored
(it stops when the first ten can no longer change) and how long a query took. The last column is
the order of the head alone, as the released code has it. Writes
``benchmarks/results/rerank_curve.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from tabulate import tabulate

import finegrain
from finegrain.data.datasets import take_split
from finegrain.encoder import Encoder
from finegrain.exporters import load_profile
from finegrain.plan import Plan
from finegrain.rerank import MATCHED_AT_ONCE, rerank
from finegrain.run import load_run
from finegrain.second_stage import WEIGHTS, SecondStage, second_stage

ROOT = Path(__file__).parents[1]
DEPTHS = (8, 16, 32, 64, 128)
TIMED_QUERIES = 100
K = 10


def measure(run: Path, profile: str) -> dict[str, Any]:
    """All numbers of one run."""
    recipe, _, _ = load_run(run)
    splits = recipe.data.splits()
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "model.plan"
        finegrain.export(run, load_profile(ROOT / "export" / f"{profile}.py"), plan)
        encoder = Encoder.from_plan(Plan(plan))
        validation = take_split(splits, "val").samples
        weight = second_stage(encoder, validation, depth=max(DEPTHS)).best_weight()
        test = take_split(splits, "test").samples
        stage = second_stage(encoder, test, depth=max(DEPTHS))
        captions = [caption for sample in test for caption in sample.captions][:TIMED_QUERIES]
        with finegrain.Searcher(plan) as searcher:
            searcher.add_samples(test, progress=False)
            first_ms = _milliseconds(searcher, captions)
        timed = {depth: _timed(plan, captions, depth) for depth in DEPTHS}
    return {
        "what": "rerank_curve",
        "recipe": recipe.name,
        "profile": profile,
        "weight": weight,
        "first_stage": {**_shown(stage, 0.0, 0), "ms": first_ms},
        "depths": {
            str(depth): {
                **_shown(stage, weight, depth),
                "ms": timed[depth],
                "scored": _scored(stage, weight, depth),
                "head_alone": _shown(stage, max(WEIGHTS), depth),
            }
            for depth in DEPTHS
        },
        "queries": len(stage.texts),
        "gallery": len(stage.images),
    }


def _shown(stage: SecondStage, weight: float, depth: int) -> dict[str, float]:
    metrics = stage.metrics(weight, depth=depth)
    return {"rank1": metrics.rank1, "mAP": metrics.mAP}


def _timed(plan: Path, captions: list[str], depth: int) -> float:
    with finegrain.Searcher(plan, rerank="match", rerank_k=depth) as searcher:
        searcher.prepare(progress=False)
        return _milliseconds(searcher, captions)


def _scored(stage: SecondStage, weight: float, depth: int) -> float:
    """Candidates that a query asks the head about, on average."""
    counts = []
    for text, places, probability in zip(
        stage.texts, stage.candidates, stage.probability, strict=True
    ):
        cosines = stage.images[places[:depth]] @ text
        logits = np.log(probability) - np.log1p(-np.minimum(probability, 1 - 1e-15))
        found = rerank(cosines, lambda some: logits[some], K, weight=weight, batch=MATCHED_AT_ONCE)  # noqa: B023
        counts.append(found.num_scored)
    return fmean(counts)


def _milliseconds(searcher: finegrain.Searcher, captions: list[str]) -> float:
    """Median of a whole query; the first are warm-up."""
    seconds = []
    for caption in captions:
        start = time.perf_counter()
        searcher.query(caption, K)
        seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds[5:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--profile", default="onnx_fp32", help="a file of export/")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    found = measure(arguments.run, arguments.profile)
    first = found["first_stage"]
    rows = [("vectors alone", first["rank1"], first["mAP"], "", first["ms"], "")]
    rows += [
        (f"k = {depth}", at["rank1"], at["mAP"], at["scored"], at["ms"], at["head_alone"]["rank1"])
        for depth, at in found["depths"].items()
    ]
    head = ["", "rank1", "mAP", "scored", "ms a query", "rank1, head alone"]
    print(tabulate(rows, headers=head, floatfmt=".1f"))
    path = arguments.out / "rerank_curve.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {path}; draw it with: python benchmarks/plots.py")


if __name__ == "__main__":
    main()
