"""Captions that training changes: dropped words, and captions of other pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finegrain.data.augment import Augmentation
from finegrain.methods import TwoTowers
from finegrain.preprocess import ImageTransform
from finegrain.preprocess.cleaning import CLIP_CLEANING, TBPS_CLIP_CLEANING
from finegrain.training import train
from finegrain.training.loader import Pairs
from finegrain.training.pictures import Pictures


@pytest.fixture
def split(flat_people):
    return flat_people.splits()["train"]


def pairs_of(split, *, drop_words, captions=1, cleaning=CLIP_CLEANING):
    pictures = Pictures(split, ImageTransform(height=32, width=16, fit="stretch"), progress=False)
    augmentation = Augmentation((32, 16), flip=0, pad=0, erase=0)
    return Pairs(
        split,
        pictures,
        augmentation,
        captions=captions,
        drop_words=drop_words,
        cleaning=cleaning,
        seed=0,
    )


def test_other_words_are_dropped_in_each_epoch(split):
    whole, changed = pairs_of(split, drop_words=0.0), pairs_of(split, drop_words=0.5)
    result = [[changed[epoch, i][1][0] for i in range(len(changed))] for epoch in range(2)]
    assert result[0] != result[1]
    assert result[0] == [changed[0, i][1][0] for i in range(len(changed))]
    for i, caption in enumerate(result[0]):
        assert 0 < len(caption.split()) <= len(whole[0, i][1][0].split())


def test_words_are_those_of_the_cleaned_caption(split):
    """TBPS-CLIP's cleaning splits words at full stops; whole words of its result are dropped."""
    samples = tuple(replace(s, captions=("A man.He wears (red).shoes",)) for s in split.samples)
    pairs = pairs_of(replace(split, samples=samples), drop_words=0.5, cleaning=TBPS_CLIP_CLEANING)
    words = {word for i in range(len(pairs)) for word in pairs[0, i].captions[0].split()}
    assert words == {"a", "man", "he", "wears", "red", "shoes"}


def test_captions_of_one_picture_lose_different_words(split):
    """Two equal captions mostly lose different words."""
    samples = tuple(replace(s, captions=(s.captions[0],) * 2) for s in split.samples)
    pairs = pairs_of(replace(split, samples=samples), drop_words=0.5, captions=2)
    told = [pairs[0, i][1] for i in range(len(pairs))]
    assert sum(one != other for one, other in told) > len(told) / 2


def test_caption_noise_applies_to_training_only(brief, tmp_path):
    """The first step has other pairs; validation uses the original captions."""
    plain = train(brief, tmp_path / "plain", progress=False)
    noisy = train(replace(brief, caption_noise=1.0), tmp_path / "noisy", progress=False)
    again = train(replace(brief, caption_noise=1.0), tmp_path / "again", progress=False)
    assert plain.losses[0] != noisy.losses[0]
    assert noisy.losses == again.losses


def test_the_method_knows_the_share_of_noise(brief, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(TwoTowers, "expect_noise", lambda self, share: shares.append(share))
    train(replace(brief, caption_noise=0.5), tmp_path / "noisy", progress=False)
    assert shares == [0.5]
