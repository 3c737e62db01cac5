from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.exporters.calibration import MAX_CALIBRATED, calibration_batches
from finegrain.exporters.parity import MAX_COMPARED
from finegrain.plan import IMAGE, TEXT, Plan
from finegrain.records import Sample


@pytest.fixture(scope="module")
def encoder(tiny_plan):
    return Encoder.from_plan(Plan(tiny_plan), threads=1)


def samples_of(number, image):
    captions = [(f"person number {n}", f"again {n}") for n in range(number)]
    return [Sample(image=image, captions=c, pid=n) for n, c in enumerate(captions)]


def ids_of(encoder, captions):
    return {tuple(row[row > 0]) for row in encoder.tokenizer.encode(captions).ids}


def seen(batches):
    return {tuple(row[row > 0]) for batch in batches for row in batch["ids"]}


@pytest.mark.parametrize(
    ("number", "first"),
    [(1000, MAX_COMPARED), (MAX_COMPARED + 3, MAX_COMPARED), (MAX_COMPARED, 400 - 64), (5, 0)],
)
def test_calibration_uses_pictures_that_are_not_compared(encoder, number, first):
    samples = samples_of(number, Path("nowhere.jpg"))
    expected = [c for s in samples[first:][:MAX_CALIBRATED] for c in s.captions][:MAX_CALIBRATED]
    assert seen(calibration_batches(encoder, samples)[TEXT]) == ids_of(encoder, expected)


def test_captions_are_prepared_as_the_graph_takes_them(encoder):
    samples = samples_of(5, Path("nowhere.jpg"))
    for batch in calibration_batches(encoder, samples)[TEXT]:
        assert encoder.runtime.encode_texts(batch["ids"], batch["eot"]).shape[1] == 32


def test_pictures_are_prepared_as_the_graph_takes_them(encoder, crops):
    pictures = sorted(crops.iterdir())
    samples = [Sample(image=p, captions=("a",), pid=n) for n, p in enumerate(pictures)]
    batches = [batch["pixels"] for batch in calibration_batches(encoder, samples)[IMAGE]]
    assert [len(pixels) for pixels in batches] == [8, 4]
    result = np.concatenate([encoder.runtime.encode_images(pixels) for pixels in batches])
    np.testing.assert_allclose(result, encoder.encode_images(pictures), atol=1e-6)


def test_pictures_are_opened_lazily(encoder):
    calibration_batches(encoder, samples_of(5, Path("nowhere.jpg")))
