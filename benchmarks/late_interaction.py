"""Does late interaction over the tokens of both towers lift rank1? Re-ranks the first 64 pictures.

    python benchmarks/late_interaction.py runs/s1 runs/s2 runs/s3

Each run is a model without a match head, with its own data. The weight of a score beside the cosine
is chosen on the validation split; 0 is one of the weights. Writes
``benchmarks/results/late_interaction.json`` after each run, and skips the runs that are in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch.nn import functional as F
from tqdm.auto import tqdm

from finegrain.data.datasets import take_split
from finegrain.encoder import Encoder
from finegrain.methods import TwoTowers
from finegrain.methods.late_interaction import in_rounds, max_sim, scan
from finegrain.metrics import RetrievalMetrics, ranks_of
from finegrain.preprocess import load_image
from finegrain.records import Split
from finegrain.runs.run import eager_encoder, load_run

OUT = Path(__file__).parent / "results" / "late_interaction.json"
K = 64
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
BATCH = 64
SCORES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "MaxSim": max_sim,
    "SCAN": scan,
    "IMRAM's rounds": in_rounds,
}


class Candidates:
    """Cosines and late scores of each caption's first pictures."""

    def __init__(self, method: TwoTowers, encoder: Encoder, split: Split) -> None:
        self._pids = split.identities()
        captions = [(c, n) for n, s in enumerate(split.samples) for c in s.captions]
        self._query_pids = self._pids[[n for _, n in captions]]
        paths = [sample.image for sample in split.samples]
        images = encoder.encode_images(paths)
        self._cosines = encoder.encode_texts([caption for caption, _ in captions]) @ images.T
        self._first = np.argsort(-self._cosines, axis=1, kind="stable")[:, :K]
        self._late = {name: np.empty(self._first.shape, np.float32) for name in SCORES}
        with torch.inference_mode():
            places = torch.cat(
                [
                    F.normalize(_places(method, encoder, paths[start : start + BATCH]), dim=-1)
                    for start in range(0, len(paths), BATCH)
                ]
            )
            for row, (caption, _) in enumerate(tqdm(captions, desc=split.name)):
                words = F.normalize(_words(method, encoder, caption), dim=-1)
                candidates = places[self._first[row]]
                for name, score in SCORES.items():
                    self._late[name][row] = score(words, candidates).numpy()

    def metrics(self, name: str, weight: float) -> RetrievalMetrics:
        """Metrics where the first pictures are ordered by cosine plus weight x late score."""
        return RetrievalMetrics.from_ranks(
            (
                ranks_of(np.flatnonzero(self._pids == pid), self._reranked(row, name, weight))
                for row, pid in enumerate(self._query_pids)
            ),
            num_gallery=len(self._pids),
        )

    def best_weight(self, name: str) -> float:
        return WEIGHTS[int(np.argmax([self.metrics(name, weight).mAP for weight in WEIGHTS]))]

    def _reranked(self, row: int, name: str, weight: float) -> NDArray[np.float32]:
        scores, first = self._cosines[row].copy(), self._first[row]
        late = scores[first] + weight * self._late[name][row]
        scores[first] = late - late.min() + scores.max() + 1  # all before the other pictures
        return scores


def _places(method: TwoTowers, encoder: Encoder, paths: list[Any]) -> torch.Tensor:
    pixels = np.stack([encoder.transform(load_image(path)) for path in paths])
    return method.image_tower.tokens(torch.from_numpy(pixels))[:, 1:].float()


def _words(method: TwoTowers, encoder: Encoder, caption: str) -> torch.Tensor:
    """Projected tokens of the words, without those of the start and the end, ``[L, D]``."""
    tokens = encoder.tokenizer.encode([caption])
    end = int(tokens.eot[0])
    ids = torch.from_numpy(tokens.ids[:, : end + 1])
    return method.text_tower.tokens(ids)[0, 1:end].float()


def measure(run: Path) -> dict[str, Any]:
    """Test metrics of one run, with and without each score."""
    recipe, method, _ = load_run(run)
    encoder = eager_encoder(recipe, method, torch.device("cpu"))
    splits = recipe.data.splits()
    validation = Candidates(method, encoder, take_split(splits, "val"))
    test = Candidates(method, encoder, take_split(splits, "test"))
    plain = test.metrics("SCAN", 0.0)
    rows: dict[str, Any] = {"cosine": {"weight": 0.0, "rank1": plain.rank1, "mAP": plain.mAP}}
    for name in SCORES:
        weight = validation.best_weight(name)
        chosen, alone = test.metrics(name, weight), test.metrics(name, 1e6)
        rows[name] = {
            "weight": weight,
            "rank1": chosen.rank1,
            "mAP": chosen.mAP,
            "rank1_alone": alone.rank1,
        }
    return {"run": run.name, "recipe": recipe.name, "seed": recipe.seed, "scores": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"what": "late_interaction", "k": K, "runs": []}
    if arguments.out.exists():
        results = json.loads(arguments.out.read_text())
    for run in arguments.runs:
        if run.name not in {done["run"] for done in results["runs"]}:
            results["runs"].append(measure(run))
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    rows = [
        (done["run"], name, at["weight"], at["rank1"], at["mAP"], at.get("rank1_alone"))
        for done in results["runs"]
        for name, at in done["scores"].items()
    ]
    heads = ["run", "score", "weight", "rank1", "mAP", "rank1 of the score alone"]
    print(tabulate(rows, headers=heads, floatfmt=".2f"))


if __name__ == "__main__":
    main()
