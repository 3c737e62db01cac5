"""The effect of FashionBERT's match head on rendered garments.

    python benchmarks/fashion_matching.py [--set A.B=C]

First, towers are trained. They take the place of the CLIP and the ResNet that published models
start from. ``recipes/fashionbert_synthetic.py`` starts from these towers, with a frozen copy of
their image backbone as patch encoder. Both protocols are evaluated on products never seen in
training: lists of 101 candidates of one sub-category, and the full gallery, where the match head
re-ranks the first k of each caption. The weight of a match in the combined score is chosen on the
validation products. Finished runs are not repeated. The table is written to
``benchmarks/results/fashion_matching.json``.

There is no column for a pretrained CLIP without training, since no weights were available.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors.torch import save_file
from tabulate import tabulate

import finegrain
from finegrain.data.datasets import take_split
from finegrain.encoder import Encoder
from finegrain.evaluation.protocols import SampledScores, draw_candidates, score_sampled
from finegrain.evaluation.reranking import WEIGHTS, CandidateScores, score_candidates
from finegrain.methods import ClipConfig, FashionBertConfig
from finegrain.metrics import RetrievalMetrics, retrieval_metrics
from finegrain.recipe import Recipe, Schedule
from finegrain.records import Split
from finegrain.runs.run import eager_encoder, load_run

ROOT = Path(__file__).parents[1]
DEPTHS = (16, 32, 64, 128)
QUERIES = 1000
VALIDATION_QUERIES = 300

Row = dict[str, str | float]


def towers_of(recipe: Recipe) -> Recipe:
    """The recipe of a contrastive run of the same towers on the same pictures."""
    method = recipe.method
    return replace(
        finegrain.load_recipe(ROOT / "recipes" / "tiny_synthetic.py"),
        name="fashion_towers",
        data=recipe.data,
        method=ClipConfig(image=method.image, text=method.text, embed_dim=method.embed_dim),
        schedule=Schedule(epochs=4, warmup=0.1, evaluate_every=4),
        captions=1,
        expected=None,
    )


def trained(recipe: Recipe, folder: Path) -> tuple[Encoder, float]:
    """The encoder of a run, and the minutes of its training."""
    kept = folder / "minutes.json"
    if not kept.is_file():
        started = perf_counter()
        finegrain.train(recipe, folder, resume=True)
        kept.write_text(json.dumps((perf_counter() - started) / 60))
    own, method, _ = load_run(folder)
    return eager_encoder(own, method, torch.device("cpu")), json.loads(kept.read_text())


def fashionbert_of(recipe: Recipe, towers: Path) -> Recipe:
    """The recipe with the towers of a run as start, and their backbone as patch encoder."""
    weights = towers / "backbone.safetensors"
    _, method, _ = load_run(towers)
    backbone = method.get_submodule("image_tower.backbone").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in backbone.items()}, weights)
    config = recipe.method
    assert isinstance(config, FashionBertConfig)
    patches = replace(config.patches, frozen=True)
    method_config = replace(config, patches=patches, patch_weights=str(weights))
    return replace(recipe, weights=str(towers), method=method_config)


def sampled(
    before: Encoder, encoder: Encoder, splits: Mapping[str, Split]
) -> tuple[list[Row], dict[str, Any]]:
    """Rank lists of 1 matching and up to 100 other products of a sub-category."""
    scores: dict[str, SampledScores] = {}
    for name, queries in (("val", VALIDATION_QUERIES), ("test", QUERIES)):
        lists = draw_candidates(splits[name], queries=queries)
        scores[name] = score_sampled(encoder, splits[name], lists, progress=True)
    weight = scores["val"].best_weight()
    untrained = score_sampled(before, splits["test"], lists, match=False)
    metrics = {
        "towers before": untrained.metrics(),
        "towers": scores["test"].metrics(),
        "patch matching": scores["test"].metrics(None),
        f"both, weight {weight:g}": scores["test"].metrics(weight),
    }
    rows = [
        {"ordered by": name, **_cells("T2I", m.text_to_image), **_cells("I2T", m.image_to_text)}
        for name, m in metrics.items()
    ]
    return rows, {"protocol": scores["test"].protocol, "chance": metrics["towers"].chance}


def full_gallery(before: Encoder, encoder: Encoder, splits: Mapping[str, Split]) -> list[Row]:
    """Rank all pictures for each caption; the match head re-ranks the first k."""
    deepest = max(DEPTHS)
    validation = score_candidates(
        encoder, splits["val"].samples, depth=deepest, max_captions=VALIDATION_QUERIES,
        progress=True,
    )  # fmt: skip
    test = score_candidates(
        encoder, splits["test"].samples, depth=deepest, max_captions=QUERIES, progress=True
    )
    rows = [
        {"ordered by": "towers before", **_cells("T2I", _towers_alone(before, splits["test"]))},
        {"ordered by": "towers", **_cells("T2I", test.metrics(0))},
    ]
    for depth in DEPTHS:
        weight = _best_weight(validation, depth)
        orders = {
            "patch matching": test.match_metrics(depth=depth),
            f"both, weight {weight:g}": test.metrics(weight, depth=depth),
        }
        rows += [
            {"ordered by": f"{name}, first {depth}", **_cells("T2I", metrics)}
            for name, metrics in orders.items()
        ]
    return rows


def _towers_alone(encoder: Encoder, split: Split) -> RetrievalMetrics:
    """Metrics of the towers for the same captions."""
    pairs = [(caption, s.pid) for s in split.samples for caption in s.captions][:QUERIES]
    return retrieval_metrics(
        encoder.encode_texts([caption for caption, _ in pairs]),
        encoder.encode_images([sample.image for sample in split.samples]),
        [pid for _, pid in pairs],
        [sample.pid for sample in split.samples],
    )


def _best_weight(stage: CandidateScores, depth: int) -> float:
    return max(WEIGHTS, key=lambda weight: stage.metrics(weight, depth=depth).mAP)


def _cells(direction: str, metrics: RetrievalMetrics) -> dict[str, float]:
    names = ("rank1", "rank5", "rank10", "mAP")
    return {f"{direction} {name}": round(getattr(metrics, name), 2) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/fashion_matching"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    arguments = parser.parse_args()
    path = ROOT / "recipes" / "fashionbert_synthetic.py"
    recipe = finegrain.load_recipe(path, arguments.set)
    towers = arguments.runs / "towers"
    before, first = trained(towers_of(recipe), towers)
    encoder, second = trained(fashionbert_of(recipe, towers), arguments.runs / "fashionbert")
    splits = recipe.data.splits()
    splits = {name: take_split(splits, name) for name in ("val", "test")}
    on_lists, about = sampled(before, encoder, splits)
    in_gallery = full_gallery(before, encoder, splits)
    result = {
        "overrides": arguments.set,
        "minutes": {"towers": round(first, 1), "fashionbert": round(second, 1)},
        "data": {name: str(split) for name, split in splits.items()},
        "sampled": {**about, "rows": on_lists},
        "full gallery": {"captions": QUERIES, "rows": in_gallery},
    }
    print(f"\n{about['protocol']}\n{tabulate(on_lists, headers='keys', floatfmt='.1f')}")
    print(f"\nfull gallery\n{tabulate(in_gallery, headers='keys', floatfmt='.1f')}")
    out = arguments.out / "fashion_matching.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwrote {out}")


if __name__ == "__main__":
    main()
