"""A text query over 100,000 pictures, compared with a baseline that works as research code does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import finegrain
from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile, load_profile
from finegrain.methods import Clip
from finegrain.plan import Plan
from finegrain.preprocess import Tokenizer

K = 10
EXPORT = Path(__file__).parents[1] / "export"
CAPTIONS = (
    "woman in red coat",
    "man with a backpack and blue jeans",
    "person holding a black umbrella",
    "girl in a striped summer dress",
    "a man in a grey hoodie riding a bicycle",
    "woman pushing a pram, white sneakers",
    "boy wearing a yellow raincoat",
    "someone in a green parka with the hood up",
    "an elderly man with a walking stick and a flat cap",
    "a woman with a ponytail carrying a brown leather handbag",
    "The man wears a dark blue suit with a white shirt and carries a black briefcase.",
    "A young woman with long blond hair, a denim jacket over a floral dress, and ankle boots.",
    "He has short dark hair and is wearing a red and black checked shirt with khaki shorts.",
    "The woman is wearing a beige trench coat with a belt, black tights and high heels, and "
    "she is looking at the phone in her right hand.",
    "A person in a black puffer jacket, grey jogging trousers and white trainers, seen from "
    "behind, with a large blue rucksack on both shoulders.",
    "This man has a beard and glasses. He wears an open olive jacket over a plain white "
    "t-shirt, dark jeans, and brown lace-up shoes.",
    "The lady has her hair in a bun. She is dressed in a sleeveless orange top and a knee "
    "length white skirt, with a straw bag over her left arm.",
    "A teenage boy in a purple basketball vest and matching shorts with bright green shoes "
    "is walking to the left while carrying a ball under his arm.",
    "The pedestrian is wearing a light pink sweater with long sleeves, navy blue trousers "
    "that are rolled up at the ankles, and a pair of black slip-on shoes without socks.",
    "A man in his thirties in a bright orange safety vest over a blue work uniform, with a "
    "white helmet on his head and heavy boots, holding a folded paper in both hands.",
)


class BaselineSearch:
    """Eager fp32 with padding to the full context, all products, and a full sort."""

    def __init__(
        self,
        method: Clip,
        tokenizer: Tokenizer,
        vectors: NDArray[np.float32],
        images: Sequence[str],
    ) -> None:
        self.method = method
        self.tokenizer = tokenizer
        self.gallery = torch.from_numpy(vectors)
        self.images = images

    @torch.inference_mode()
    def query(self, caption: str) -> list[str]:
        """Paths of the best pictures, best first."""
        tokens = self.tokenizer.encode([caption], pad_to=self.tokenizer.context_length)
        text = self.method.encode_texts(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.eot))
        scores = (text @ self.gallery.T)[0]
        best = torch.argsort(scores, descending=True)[:K]
        return [self.images[place] for place in best.tolist()]


@pytest.fixture(scope="module")
def baseline(
    method: Clip, encoder: Encoder, vectors: NDArray[np.float32], images: list[str]
) -> BaselineSearch:
    return BaselineSearch(method, encoder.tokenizer, vectors, images)


@pytest.mark.parametrize("profile", ["onnx_fp32", "cpu_int8"])
def test_query(
    profile: str,
    baseline: BaselineSearch,
    shipped: Callable[[ExportProfile], Path],
    filled: Callable[[Path], finegrain.Searcher],
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    record: Callable[..., None],
    benchmark: Any,
) -> None:
    target = load_profile(EXPORT / f"{profile}.py")
    plan = shipped(target)
    searcher = filled(plan)

    def query(caption: str) -> finegrain.search.matches.Matches:
        return searcher.query(caption, k=K, negation=False)  # the baseline encodes all words

    # Times are comparable only for similar results. The scores of random vectors are close
    # together, so int8 changes more of the ten best here than with a trained model.
    shared = fmean(len({m.image for m in query(c)} & {*baseline.query(c)}) / K for c in CAPTIONS)
    assert shared >= (0.99 if profile == "onnx_fp32" else 0.6)

    summary = race(query, baseline.query, CAPTIONS, rounds=rounds(200))
    encoder = Encoder.from_plan(Plan(plan), threads=torch.get_num_threads())
    details = {
        "tokens_p50": median(encoder.tokenizer.encode(CAPTIONS).eot.tolist()) + 1,
        "top10_shared": round(shared, 3),
        "one_after_another_ms": _one_after_another(query, rounds(500)),
        "stages_p50_ms": _stages(encoder, searcher.gallery, rounds(200)),
    }
    benchmark.extra_info.update(details)
    scale = {"gallery": len(baseline.images), "k": K, "model": "ViT-B/16 random weights"}
    record(f"query_{profile}", {**summary, **details, **scale})
    assert summary["ratio"] > 1


def _one_after_another(query: Callable[[str], object], rounds: int) -> dict[str, float]:
    """Latencies of a server without other work: no pauses, and warm caches."""
    times = []
    for turn in range(rounds):
        start = time.perf_counter()
        query(CAPTIONS[turn % len(CAPTIONS)])
        times.append(1e3 * (time.perf_counter() - start))
    return {f"p{q}": round(float(np.percentile(times, q)), 3) for q in (50, 95, 99)}


def _stages(encoder: Encoder, gallery: finegrain.Gallery, rounds: int) -> dict[str, float]:
    """Median milliseconds of each part of a query, when the parts are called one by one.

    They run without pauses, and their caches are warmer than in the race, so their sum is smaller.
    """
    times = np.empty((rounds, 5))
    for turn in range(rounds):
        clock = [time.perf_counter()]
        tokens = encoder.tokenizer.encode([CAPTIONS[turn % len(CAPTIONS)]])
        clock.append(time.perf_counter())
        vector = encoder.runtime.encode_texts(tokens.ids, tokens.eot)
        clock.append(time.perf_counter())
        len(gallery)
        clock.append(time.perf_counter())
        (hits,) = gallery.search(vector, K)
        clock.append(time.perf_counter())
        gallery.rows([hit.id for hit in hits])
        clock.append(time.perf_counter())
        times[turn] = np.diff(clock)
    names = ("tokenize", "text_tower", "count", "search", "rows")
    return dict(zip(names, np.round(1e3 * np.median(times, axis=0), 3).tolist(), strict=True))
