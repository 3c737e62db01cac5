"""Several processes that take in one folder at once add each of its pictures once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from finegrain.gallery import Gallery


def test_overlapping_index_runs_add_each_picture_once(plan: Path, tmp_path: Path):
    (tmp_path / "crops").mkdir()
    random = np.random.default_rng(0)
    for number in range(70):
        pixels = random.integers(0, 256, (16, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{number}.png")
    command = [sys.executable, "-m", "finegrain", "index", str(plan), str(tmp_path / "crops")]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        assert len(gallery) == len(gallery.images()) == 70
        assert gallery.check().is_valid


def test_several_crops_and_pixels_of_one_picture_are_no_duplicates(tmp_path: Path):
    addresses = ["a.jpg#xywh=0,0,4,8", "a.jpg#xywh=4,0,4,8", "a.jpg", None, None]
    vectors = np.tile([1.0, 0.0], (5, 1))
    with Gallery(tmp_path / "g", dim=2) as gallery:
        assert gallery.add(vectors, addresses, on_duplicate="skip") == [1, 2, 3, 4, 5]
