from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finegrain.bounded.npz import write_npz
from finegrain.errors import PlanError
from finegrain.evaluation.background import MAX_CAPTIONS, Background, bank_of
from finegrain.evaluation.match_probability import MatchProbability

PROBABILITY = MatchProbability(intercept=-1, score=2, z=0.5, log_size=-1, below_best=3)
SETTINGS = b'{"weight": 0.5, "neighbours": 8, "source": "a", "match_probability": null}'


@pytest.fixture
def background():
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float16)
    return Background(
        captions=rows,
        weight=0.5,
        neighbours=8,
        source="training captions",
        match_probability=PROBABILITY,
    )


def test_a_background_is_read_as_it_was_written(background):
    read = Background.from_bytes(background.to_bytes(), embed_dim=4)
    np.testing.assert_array_equal(read.captions, background.captions)
    for name in ("weight", "neighbours", "source", "match_probability"):
        assert getattr(read, name) == getattr(background, name)
    assert read.fingerprint == background.fingerprint


def test_the_fingerprint_changes_with_the_bank_and_the_settings(background):
    others = [
        replace(background, weight=0.25),
        replace(background, neighbours=7),
        replace(background, captions=background.captions[::-1]),
        replace(background, captions=background.captions.reshape(40, 2)),
    ]
    assert len({background.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_weight_of_zero_is_no_correction(background):
    none = replace(background, weight=0.0)
    assert none.hub_correction is None
    assert "no weight was better than 0" in str(none)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (b"[]", "expected the settings"),
        (SETTINGS.replace(b"0.5", b"-1"), "a weight from 0"),
        (SETTINGS.replace(b"0.5", b"NaN"), "invalid"),
        (SETTINGS.replace(b"8", b"0"), "neighbours of 1 or more"),
        (SETTINGS.replace(b"8", b"true"), "neighbours of 1 or more"),
        (SETTINGS.replace(b"8", b"21"), "at least 21"),
        (SETTINGS.replace(b'"a"', b"7"), "a text as source"),
        (SETTINGS.replace(b"null", b'{"z": 1}'), "five coefficients"),
        (b"{", "invalid"),
    ],
)
def test_invalid_settings_are_refused(background, settings, message):
    data = write_npz(
        {"captions": background.captions, "settings": np.frombuffer(settings, np.uint8)}
    )
    with pytest.raises(PlanError, match=message):
        Background.from_bytes(data, embed_dim=4)


@pytest.mark.parametrize(
    "captions",
    [
        np.ones((20, 5), np.float16),
        np.full((20, 4), np.nan, np.float16),
        np.ones((MAX_CAPTIONS + 1, 4), np.float16),
    ],
)
def test_an_invalid_bank_is_refused(captions):
    data = write_npz({"captions": captions, "settings": np.frombuffer(SETTINGS, np.uint8)})
    with pytest.raises(PlanError, match="finite embeddings of width 4"):
        Background.from_bytes(data, embed_dim=4)


def test_a_bank_has_up_to_4000_different_captions():
    captions = [f"caption {n % 6000}" for n in range(12_000)]
    bank = bank_of(captions)
    assert len(bank) == len(set(bank)) == MAX_CAPTIONS
    assert bank == bank_of(captions)
    assert bank_of(["a", "b", "a"]) == ["a", "b"]
