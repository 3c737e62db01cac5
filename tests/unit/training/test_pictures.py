from __future__ import annotations

import os

import numpy as np
import pytest

from finegrain.errors import ImageError
from finegrain.preprocess import ImageTransform
from finegrain.records import Sample, Split
from finegrain.training import pictures as module
from finegrain.training.pictures import Pictures

TRANSFORM = ImageTransform(height=32, width=16, fit="stretch")


@pytest.fixture
def split(flat_people):
    return flat_people.splits()["train"]


@pytest.fixture
def in_files(tmp_path, monkeypatch):
    """Every split is treated as large; the cache is a folder of the test."""
    monkeypatch.setattr(module, "MAX_MEMORY", 0)
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "pictures"


def pictures_of(split, transform=TRANSFORM):
    return Pictures(split, transform, progress=False)


def test_pictures_equal_the_output_of_the_transform(split):
    pictures = pictures_of(split)
    assert pictures[0].shape == (32, 16, 3)
    assert pictures[0][2, 3].tolist() == [15, 15, 15]


def test_pictures_from_a_cache_file_are_equal(split, in_files):
    filed = [picture.copy() for picture in map(pictures_of(split).__getitem__, range(len(split)))]
    assert len(list(in_files.iterdir())) == 1
    again = pictures_of(split)
    for i, picture in enumerate(filed):
        assert np.array_equal(again[i], picture)


def test_a_cache_file_is_written_once(split, in_files, monkeypatch):
    pictures_of(split)
    monkeypatch.setattr(Pictures, "_decode_into", None)
    assert pictures_of(split)[0].shape == (32, 16, 3)


def test_another_transform_or_a_changed_picture_needs_another_file(split, in_files):
    pictures_of(split)
    pictures_of(split, ImageTransform(height=32, width=16, fit="pad"))
    assert len(list(in_files.iterdir())) == 2
    os.utime(split.samples[0].image, ns=(1, 1))
    pictures_of(split)
    assert len(list(in_files.iterdir())) == 3


def test_writing_to_a_returned_picture_does_not_change_the_cache(split, in_files):
    pictures = pictures_of(split)
    before = pictures[0]
    pictures[0][:] = 7
    assert np.array_equal(pictures[0], before)


def test_a_broken_picture_is_an_error_without_a_cache_file(tmp_path, in_files):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sample = Sample(image=tmp_path / "broken.png", captions=("a",), pid=0)
    broken = Split(name="train", samples=(sample,))
    with pytest.raises(ImageError, match=r"broken\.png"):
        pictures_of(broken)
    assert list(in_files.iterdir()) == []


def test_a_broken_picture_of_a_small_split_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sample = Sample(image=tmp_path / "broken.png", captions=("a",), pid=0)
    with pytest.raises(ImageError, match=r"broken\.png"):
        pictures_of(Split(name="train", samples=(sample,)))
