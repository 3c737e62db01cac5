"""A pointing game: is the most relevant place of a garment's words inside that garment?

    python benchmarks/explanation.py runs/demo/quick_synthetic runs/demo/model.plan

The garments, bags and hats of rendered people are known for each pixel. The query names them all.
A way to explain scores a point for a named thing of at least 0.4 % of the picture if the centre of
the place where the relevance of its colour and its name is greatest is inside it. The ways are:

- covering regions of the picture, about 8 to 50 of them (``Match.explain``);
- inner products of the words' vectors with the tokens of one encoding, for towers with tokens;
- the centre of the picture and a random place, for comparison.

The CPU time is that of one thread. Writes ``benchmarks/results/explanation.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.plan import Plan
from finegrain.runs.run import load_run
from finegrain.search.explanation import explain
from finegrain.synthetic.person import identities
from finegrain.synthetic.render import Rendering, render_with_regions
from finegrain.synthetic.view import view_of

OUT = Path(__file__).parent / "results" / "explanation.json"
FIRST_TEST = 2100
"""People before this one are in the training and validation splits of the demo."""
NUM_PEOPLE = 2700
THINGS = ("upper", "lower", "hat", "bag", "shoes")
LEAST_AREA = 0.004
CELLS = (50, 32, 24, 18)

Maps = NDArray[np.floating]
"""Relevance of each word and place, ``[W, R, C]``."""


def ways(encoder: Encoder, run: Path) -> Mapping[str, Callable[[str, Image.Image], Maps]]:
    """The ways to explain."""
    method = load_run(run)[1]
    random = np.random.default_rng(0)

    def tokens(query: str, picture: Image.Image) -> Maps:
        pixels = torch.from_numpy(encoder.transform(picture)[None])
        with torch.inference_mode():
            places = method.image_tower.tokens(pixels)[0, 1:].numpy()
        words = query.split()
        lacking = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
        texts = encoder.encode_texts([query, *lacking])
        columns = round((len(places) * picture.width / picture.height) ** 0.5)
        return ((texts[0] - texts[1:]) @ places.T).reshape(len(words), -1, columns)

    def covers(cells: int) -> Callable[[str, Image.Image], Maps]:
        return lambda query, picture: explain(encoder, query, picture, cells=cells).relevance

    centre = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], float)
    return {
        **{f"{cells} covers": covers(cells) for cells in CELLS},
        "tokens of one encoding": tokens,
        "centre": lambda query, _: np.repeat(centre[None], len(query.split()), axis=0),
        "random": lambda query, _: random.random((len(query.split()), 8, 4)),
    }


def is_inside(relevance: NDArray[np.floating], rendering: Rendering, thing: str) -> bool:
    """Whether the centre of the most relevant place of a map ``[R, C]`` is inside a thing."""
    place = np.unravel_index(np.argmax(relevance), relevance.shape)
    row, column = (
        int((at + 0.5) * pixels / places)
        for at, pixels, places in zip(place, rendering.regions.shape, relevance.shape, strict=True)
    )
    return bool(rendering.mask(thing)[row, column])


def measure(encoder: Encoder, run: Path, number: int) -> dict[str, Any]:
    """Points and CPU time of each way."""
    points: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = defaultdict(float)
    explained = ways(encoder, run)
    for identity in identities(NUM_PEOPLE, seed=0)[FIRST_TEST : FIRST_TEST + number]:
        rendering = render_with_regions(identity.person, view_of(identity, 0, seed=0))
        shown = identity.person.attributes()
        named = [t for t in THINGS if shown.get(t) and shown.get(f"{t}_color")]
        worn = " and ".join(f"{shown[f'{thing}_color']} {shown[thing]}" for thing in named)
        query = f"a {shown['gender']} in {worn}"
        words = query.split()
        for name, way in explained.items():
            start = time.process_time()
            maps = way(query, Image.fromarray(rendering.image))
            seconds[name] += time.process_time() - start
            for thing in named:
                if rendering.mask(thing).mean() >= LEAST_AREA:
                    last = words.index(str(shown[thing]).split()[-1])
                    relevance = maps[last - 1] + maps[last]  # the colour and the name
                    points[name][thing].append(is_inside(relevance, rendering, thing))
    return {
        "what": "explanation",
        "people": number,
        "things": sum(len(hits) for hits in points["centre"].values()),
        "ways": {
            name: {
                "inside": fmean(hit for hits in by_thing.values() for hit in hits),
                "by_thing": {thing: fmean(hits) for thing, hits in by_thing.items()},
                "cpu_ms": 1000 * seconds[name] / number,
            }
            for name, by_thing in points.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run, whose towers give the tokens")
    parser.add_argument("plan", type=Path, help="the plan of the run")
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder.from_plan(Plan(arguments.plan), threads=1)
    measured = measure(encoder, arguments.run, arguments.people)
    rows = [(name, way["inside"], way["cpu_ms"]) for name, way in measured["ways"].items()]
    print(tabulate(rows, headers=["", "inside", "CPU ms"], floatfmt=(None, ".3f", ".1f")))
    arguments.out.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
