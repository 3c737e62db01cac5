"""Quality and time of re-ranking, by number of candidates.

    python benchmarks/rerank_curve.py [RUN]

Without RUN, ``recipes/rasa_synthetic.py`` is trained first. Its image tower starts from that of the
demo's model, which takes the place of the ALBEF that RaSa starts from. Finished runs are not
repeated.

The run is exported, and one caption of each picture of the test split searches all pictures. For
each number of candidates there are two orders. One combines both scores, with the weight that the
export chose on the validation split. The other uses the match head alone, as the released code
does, and can never stop early. Milliseconds are those of a whole query by a Searcher; measure them
on an idle machine. Writes ``benchmarks/results/rerank_curve.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from tabulate import tabulate
from torch import Tensor

import finegrain
from finegrain.data.datasets import take_split
from finegrain.encoder import Encoder
from finegrain.evaluation.reranking import score_candidates
from finegrain.exporters import load_profile
from finegrain.methods import Rasa
from finegrain.metrics import RetrievalMetrics
from finegrain.plan import Plan
from finegrain.recipe import ParameterRule
from finegrain.records import Sample
from finegrain.rerank import RerankBy
from finegrain.runs.checkpoint import last_checkpoint
from finegrain.runs.run import assemble, load_run

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
TOWERS = Path("runs/demo/tiny_synthetic")
RUN = Path("runs/rerank_curve")
DEPTHS = (8, 16, 32, 64, 128)
K = 10
TIMED_QUERIES = 100
WARM_UP = 5


def measure(run: Path, profile: str, depths: Sequence[int]) -> dict[str, Any]:
    """All results of one run."""
    recipe, _, _ = load_run(run)
    samples = one_caption_each(take_split(recipe.data.splits(), "test").samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.plan"
        finegrain.export(run, load_profile(ROOT / "export" / f"{profile}.py"), path)
        plan = Plan(path)
        assert plan.manifest.match is not None
        weight = plan.manifest.match["weight"]
        stage = score_candidates(Encoder.from_plan(plan), samples, depth=max(depths), progress=True)
        _fill(path, samples)
        vectors_ms = _milliseconds(path, samples)
        milliseconds = {
            by: {depth: _milliseconds(path, samples, depth, by) for depth in depths}
            for by in get_args(RerankBy)
        }
    return {
        "what": "rerank_curve",
        "recipe": recipe.name,
        "profile": profile,
        "queries": len(stage.texts),
        "gallery": len(stage.images),
        "k": K,
        "weight": weight,
        "vectors alone": {**_shown(stage.metrics(0.0)), "ms": vectors_ms},
        "both": {
            str(depth): {
                **_shown(stage.metrics(weight, depth=depth)),
                "scored": float(stage.num_scored(weight, K, depth=depth).mean()),
                "ms": milliseconds["both"][depth],
            }
            for depth in depths
        },
        "head alone": {
            str(depth): {
                **_shown(stage.match_metrics(depth=depth)),
                "scored": float(depth),
                "ms": milliseconds["match"][depth],
            }
            for depth in depths
        },
    }


def trained(towers: Path, run: Path) -> Path:
    """A run of RaSa that starts from the image tower of a contrastive run."""
    if last_checkpoint(towers) is None:
        finegrain.train(finegrain.load_recipe(RECIPES / "tiny_synthetic.py"), towers)
    recipe = finegrain.load_recipe(RECIPES / "rasa_synthetic.py")
    weights = run / "start.safetensors"
    if not weights.is_file():
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_file(start_of(recipe, towers), weights)
    # The image tower is trained already and needs only small changes.
    rule = ParameterRule(names="image_tower.*", lr=0.1)
    optimizer = replace(recipe.optimizer, rules=(*recipe.optimizer.rules, rule))
    finegrain.train(replace(recipe, weights=str(weights), optimizer=optimizer), run, resume=True)
    return run


def start_of(recipe: finegrain.Recipe, towers: Path) -> dict[str, Tensor]:
    """The recipe's random weights, with the image tower and its momentum copy from a run."""
    torch.manual_seed(recipe.seed)
    method = assemble(recipe)
    assert isinstance(method, Rasa)
    _, contrastive, _ = load_run(towers)
    method.image_tower.load_state_dict(contrastive.image_tower.state_dict())
    method.image_momentum.restart(method.image_tower)
    return {name: tensor.contiguous() for name, tensor in method.state_dict().items()}


def one_caption_each(samples: Sequence[Sample]) -> list[Sample]:
    """As many queries as pictures; a second caption would double the time and change little."""
    return [replace(sample, captions=sample.captions[:1]) for sample in samples]


def _shown(metrics: RetrievalMetrics) -> dict[str, float]:
    return {"rank1": metrics.rank1, "mAP": metrics.mAP}


def _fill(plan: Path, samples: Sequence[Sample]) -> None:
    with finegrain.Searcher(plan, rerank="match") as searcher:
        searcher.add_samples(samples, progress=False)
        searcher.prepare(progress=False)


def _milliseconds(
    plan: Path, samples: Sequence[Sample], depth: int | None = None, by: RerankBy = "both"
) -> float:
    """Median milliseconds of whole queries; the first are warm-up."""
    captions = [sample.captions[0] for sample in samples]
    timed = captions[:: max(1, len(captions) // TIMED_QUERIES)]
    options: dict[str, Any] = (
        {} if depth is None else {"rerank": "match", "rerank_k": depth, "rerank_by": by}
    )
    seconds = []
    with finegrain.Searcher(plan, **options) as searcher:
        for caption in timed:
            start = time.perf_counter()
            searcher.query(caption, K)
            seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="run of RaSa (default: train one)")
    parser.add_argument("--profile", default="onnx_fp32", help="a file of export/")
    parser.add_argument(
        "--depths", type=int, nargs="+", default=DEPTHS, metavar="K", help="candidates"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    run = arguments.run or trained(TOWERS, RUN)
    measured = measure(run, arguments.profile, sorted(arguments.depths))
    first = measured["vectors alone"]
    rows = [("vectors alone", first["rank1"], first["mAP"], "", first["ms"])]
    rows += [
        (f"{name}, k = {depth}", at["rank1"], at["mAP"], at["scored"], at["ms"])
        for name in ("both", "head alone")
        for depth, at in measured[name].items()
    ]
    print(tabulate(rows, headers=["", "rank1", "mAP", "scored", "ms a query"], floatfmt=".1f"))
    path = arguments.out / "rerank_curve.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}; draw it with: python benchmarks/plots.py")


if __name__ == "__main__":
    main()
