"""What training captions in everyday words teach a text tower, by queries in everyday words.

    python benchmarks/everyday_captions.py model.plan --data data/synthetic

The image tower of the plan stays as it is. A new text tower from random weights is trained against
it for some hundred steps, on plain captions, on everyday ones without the names in the everyday
queries, and on everyday ones with all names. This takes minutes on a CPU. Writes
``benchmarks/results/everyday_captions.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from everyday_words import EVERYDAY, K
from tabulate import tabulate
from tqdm import tqdm

from finegrain.data import everyday_captions
from finegrain.data.datasets import SyntheticPeople
from finegrain.encoder import Encoder
from finegrain.losses import itc
from finegrain.methods.two_towers import unit
from finegrain.metrics import precision_at_k
from finegrain.models.trained_rows import keep_trained_rows
from finegrain.plan import Plan
from finegrain.preprocess import Tokenizer
from finegrain.preprocess.vocabulary import Vocabulary, words_of
from finegrain.recipe import Recipe, recipe_from_dict
from finegrain.records import Split
from finegrain.search.asking.words import WordReader
from finegrain.synthetic import read_attributes
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, Predicate, matches
from finegrain.training.optim import make_optimizer, set_lr

ROOT = Path(__file__).parents[1]
BATCH = 128
ASKED = {word for twins in EVERYDAY for word in words_of(twins.everyday)}

Names = Mapping[str, tuple[str, ...]]
HELD_OUT: Names = {
    plain: tuple(name for name in names if ASKED.isdisjoint(words_of(name)))
    for plain, names in everyday_captions.NAMES.items()
}
KINDS: Mapping[str, tuple[everyday_captions.Wording, Names]] = {
    "plain": ("plain", {}),
    "everyday, without the names in the queries": ("everyday", HELD_OUT),
    "everyday": ("everyday", everyday_captions.NAMES),
}
QUERIES: Mapping[str, Sequence[tuple[str, Predicate]]] = {
    "everyday words": [(twins.everyday, twins.predicate) for twins in EVERYDAY],
    "their plain twins": [(twins.plain, twins.predicate) for twins in EVERYDAY],
    "renderer's queries": [(query.text, query.predicate) for query in ATTRIBUTE_QUERIES],
}

Encode = Callable[[Sequence[str]], np.ndarray]


def trained(
    recipe: Recipe, split: Split, pictures: np.ndarray, scale: float, steps: int
) -> tuple[Encode, Vocabulary]:
    """A text tower that was trained against embeddings of pictures, ``[N, D]``."""
    text = recipe.method.text
    tokenizer: Tokenizer = text.training_tokenizer().remembering(len(split.samples) * 4)
    captions = [caption for sample in split.samples for caption in sample.captions]
    vocabulary = Vocabulary.of(captions, tokenizer)
    torch.manual_seed(recipe.seed)
    tower = text.build(recipe.method.embed_dim)
    keep_trained_rows(tower, vocabulary.tokens)  # a table of all tokens is slow to train
    optimizer = make_optimizer(tower, recipe.optimizer)
    draw = np.random.default_rng(recipe.seed)
    images, pids = torch.from_numpy(pictures), torch.tensor([s.pid for s in split.samples])
    tower.train()
    for step in tqdm(range(steps), desc="training", mininterval=10):
        set_lr(optimizer, lambda factor, at=step: factor * recipe.optimizer.lr * (1 - at / steps))
        rows = draw.choice(len(split.samples), BATCH, replace=False)
        batch = tokenizer.encode([draw.choice(split.samples[row].captions) for row in rows])
        texts = unit(tower(torch.from_numpy(batch.ids), torch.from_numpy(batch.eot)))
        loss = itc(images[rows], texts, pids[rows], torch.tensor(scale))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tower.eval()

    @torch.no_grad()
    def encode(queries: Sequence[str]) -> np.ndarray:
        batch = tokenizer.encode(queries)
        return unit(tower(torch.from_numpy(batch.ids), torch.from_numpy(batch.eot))).numpy()

    return encode, vocabulary


def precisions(
    encode: Encode, vocabulary: Vocabulary, gallery: np.ndarray, shown: Sequence[Any]
) -> dict[str, dict[str, float]]:
    """Mean precision at 10 of each kind of query, with words read and as typed."""
    reader = WordReader(vocabulary)
    reached: dict[str, dict[str, float]] = {}
    for kind, queries in QUERIES.items():
        typed = [text for text, _ in queries]
        ways = {"words read": [reader.read(text).text for text in typed], "as typed": typed}
        for way, texts in ways.items():
            best = np.argsort(-(encode(texts) @ gallery.T), axis=1, kind="stable")[:, :K]
            reached.setdefault(kind, {})[way] = fmean(
                precision_at_k([matches(shown[at], right) for at in row], K)
                for row, (_, right) in zip(best, queries, strict=True)
            )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--pictures", type=int, default=8000, help="training pictures")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    plan = Plan(arguments.plan)
    recipe = recipe_from_dict(plan.manifest.recipe, str(arguments.plan))
    scale = plan.manifest.logit_scale
    assert scale is not None
    encoder = Encoder.from_plan(plan)
    splits = dict(SyntheticPeople(root=str(arguments.data)).splits())
    chosen = splits["train"].samples[: arguments.pictures]
    splits["train"] = replace(splits["train"], samples=chosen)
    pictures = {
        name: encoder.encode_images([sample.image for sample in splits[name].samples])
        for name in ("train", "test")
    }
    truths = {truth.file_path: truth.attributes for truth in read_attributes(arguments.data)}
    images = arguments.data / "imgs"
    shown = [truths[str(s.image.relative_to(images))] for s in splits["test"].samples]
    measured: dict[str, Any] = {
        "what": "everyday_captions",
        "steps": arguments.steps,
        "pictures": len(chosen),
        "gallery": len(shown),
        "captions": {},
    }
    for name, (wording, names) in KINDS.items():
        with patch.object(everyday_captions, "NAMES", names):
            split = everyday_captions.reworded(splits["train"], wording, typos=0.0, seed=0)
        encode, known = trained(recipe, split, pictures["train"], scale, arguments.steps)
        measured["captions"][name] = {
            "words": len(known.words),
            "precision": precisions(encode, known, pictures["test"], shown),
        }
        print(name, measured["captions"][name])
    rows = [
        (name, at["words"], *(p for ways in at["precision"].values() for p in ways.values()))
        for name, at in measured["captions"].items()
    ]
    heads = [f"{kind}, {way}" for kind in QUERIES for way in ("words read", "as typed")]
    print(tabulate(rows, headers=["captions", "words", *heads], floatfmt=".3f"))
    path = arguments.results / "everyday_captions.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
