from __future__ import annotations

import json

import pytest
from PIL import Image

from finegrain.data.datasets import (
    Catalog,
    CuhkPedes,
    LabelledPhotos,
    SyntheticPeople,
    take_split,
)
from finegrain.errors import DataError


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (20, 40), (200, 16, 46)).save(tmp_path / "1.png")
    return tmp_path


def test_each_kind_reads_its_format(folder):
    record = {"split": "test", "captions": ["a coat"], "file_path": "1.png", "id": 4}
    (folder / "reid_raw.json").write_text(json.dumps([record]))
    (folder / "labels.csv").write_text("file,label,split\n1.png,coat,test\n")
    (folder / "shop.csv").write_text("photo,title,sku,part\n1.png,a coat,A7,test\n")
    catalog = Catalog(
        table=str(folder / "shop.csv"),
        image_column="photo",
        caption_columns=("title",),
        pid_column="sku",
        split_column="part",
    )
    for dataset, caption in (
        (CuhkPedes(root=str(folder)), "a coat"),
        (LabelledPhotos(root=str(folder)), "coat"),
        (catalog, "a coat"),
    ):
        (sample,) = take_split(dataset, "test").samples
        assert (sample.image, sample.captions[0]) == (folder / "1.png", caption)


def test_synthetic_people_are_drawn_once(tmp_path):
    dataset = SyntheticPeople(
        root=str(tmp_path / "people"), train=4, val=2, test=2, pictures_per_identity=1
    )
    splits = dataset.splits()
    assert set(splits) == {"train", "val", "test"}
    assert sum(split.num_pids for split in splits.values()) == 8
    pids = [{sample.pid for sample in split.samples} for split in splits.values()]
    assert set.intersection(*pids) == set()
    first = splits["train"].samples[0].image
    with Image.open(first) as picture:
        assert picture.size == (64, 128)
    drawn = first.stat().st_mtime_ns
    assert dataset.splits() == splits
    assert first.stat().st_mtime_ns == drawn


def test_a_split_that_is_not_there(folder):
    (folder / "labels.csv").write_text("file,label,split\n1.png,coat,test\n1.png,coat,train\n")
    with pytest.raises(DataError, match="LabelledPhotos has no split 'val'; it has test, train"):
        take_split(LabelledPhotos(root=str(folder)), "val")
