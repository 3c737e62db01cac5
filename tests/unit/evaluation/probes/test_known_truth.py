from __future__ import annotations

import numpy as np
import pytest

from finegrain.errors import EvaluationError
from finegrain.evaluation.probes import QueryPrecision, query_precision, swap_accuracy

COLOURS = ("red", "green", "blue")


class ColourEncoder:
    """An encoder without errors: an embedding represents which garment has which colour."""

    def encode_images(self, pictures, *, progress=False):
        return np.stack([self._embedding(picture) for picture in pictures])

    def encode_texts(self, captions, *, progress=False):
        return np.stack([self._embedding(caption) for caption in captions])

    def _embedding(self, words: str):
        """One-hot colours of top and trousers, ``[6]``, normalised."""
        results = [COLOURS.index(word) for word in words.split() if word in COLOURS]
        vector = np.zeros(6, np.float32)
        vector[[place * 3 + colour for place, colour in enumerate(results)]] = 1
        return vector / np.linalg.norm(vector)


class BagOfWords(ColourEncoder):
    """An encoder that represents colours without their garments."""

    def _embedding(self, words: str):
        bag = super()._embedding(words).reshape(2, 3).sum(axis=0)
        return bag / np.linalg.norm(bag)


PICTURES = ["red red", "red green", "green blue", "blue red", "green green"]
TRUTHS = [dict(zip(("top", "trousers"), p.split(), strict=True)) for p in PICTURES]


def is_top(colour):
    return lambda truth: truth["top"] == colour


def test_a_perfect_model_has_perfect_precision():
    queries = {f"{colour} top": is_top(colour) for colour in COLOURS}
    result = query_precision(ColourEncoder(), PICTURES, TRUTHS, queries, k=2)
    assert result.precision == {"red top": 1.0, "green top": 1.0, "blue top": 0.5}
    assert result.num_relevant == {"red top": 2, "green top": 2, "blue top": 1}
    assert result.mean == pytest.approx(2.5 / 3)


def test_wrong_matches_give_a_precision_of_zero():
    queries = {"blue top": lambda truth: truth == {"top": "red", "trousers": "red"}}
    result = query_precision(ColourEncoder(), PICTURES, TRUTHS, queries, k=1)
    assert (result.mean, result.num_relevant["blue top"]) == (0.0, 1)


def test_a_table_shows_each_query_and_the_mean():
    result = QueryPrecision(k=10, precision={"a": 0.5, "b": 1.0}, num_relevant={"a": 5, "b": 40})
    lines = [line.split() for line in str(result).splitlines()]
    assert lines[0] == ["query", "precision@10", "in", "gallery"]
    assert ["a", "0.5", "5"] in lines
    assert lines[-1] == ["mean", "0.750"]


def test_swap_accuracy_measures_the_binding_of_attributes():
    captions, swapped = ["red and green", "blue and red"], ["green and red", "red and blue"]
    pictures = ["red green", "blue red"]
    assert swap_accuracy(ColourEncoder(), pictures, captions, swapped) == 1.0
    assert swap_accuracy(ColourEncoder(), pictures, swapped, captions) == 0.0
    assert swap_accuracy(BagOfWords(), pictures, captions, swapped) == 0.5


def test_captions_that_are_not_pairs_are_refused():
    with pytest.raises(EvaluationError, match="swapped for each of the 2 pictures, got 3"):
        swap_accuracy(
            ColourEncoder(), ["red green"] * 2, ["red and green"] * 2, ["x red green"] * 3
        )


@pytest.mark.parametrize(("truths", "k"), [(TRUTHS[:1], 1), (TRUTHS * 2, 1), (TRUTHS, 0)])
def test_invalid_truths_or_k_are_refused(truths, k):
    with pytest.raises(EvaluationError):
        query_precision(ColourEncoder(), PICTURES, truths, {"red top": is_top("red")}, k=k)


def test_the_probes_run_on_a_plan(tiny_plan, crops):
    from finegrain.encoder import Encoder
    from finegrain.plan import Plan

    encoder = Encoder.from_plan(Plan(tiny_plan), threads=1)
    pictures = sorted(crops.iterdir())
    truths = [{"even": i % 2 == 0} for i in range(len(pictures))]
    result = query_precision(encoder, pictures, truths, {"coat": lambda t: t["even"]}, k=12)
    assert result.mean == 0.5
    captions = ["red coat, blue jeans"] * 12
    assert swap_accuracy(encoder, pictures, captions, captions) == 0.5
