from __future__ import annotations

import json

import pytest
from fixtures.karpathy_layout import FLICKR_RECORDS, karpathy_record, write_karpathy

from finegrain.data.datasets import Flickr30k, MsCoco, dataset_named
from finegrain.errors import DataError


@pytest.mark.filterwarnings("ignore:not comparable")
def test_flickr30k_is_read(tmp_path):
    splits = Flickr30k(
        root=str(write_karpathy(tmp_path, "dataset_flickr30k.json", FLICKR_RECORDS))
    ).splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1, "val": 1, "test": 1}
    (sample,) = splits["train"].samples
    assert sample.captions == ("A red coat.", "A coat", "Red")
    assert sample.image == tmp_path / "images" / "1.jpg"
    assert splits["test"].samples[0].captions == ("A hat",)


@pytest.mark.filterwarnings("ignore:not comparable")
def test_the_remaining_validation_pictures_of_coco_are_for_training(tmp_path):
    records = [
        karpathy_record("a.jpg", "restval", ["A dog"], filepath="val2014"),
        karpathy_record("b.jpg", "train", ["A cat"], filepath="train2014"),
        karpathy_record("c.jpg", "test", ["A bird"] * 6, filepath="val2014"),
    ]
    splits = MsCoco(root=str(write_karpathy(tmp_path, "dataset_coco.json", records))).splits()
    assert [sample.image.parent.name for sample in splits["train"].samples] == [
        "val2014", "train2014",
    ]  # fmt: skip
    assert len(splits["test"].samples[0].captions) == 6


def test_a_copy_with_other_numbers_warns(tmp_path):
    root = write_karpathy(tmp_path, "dataset_flickr30k.json", FLICKR_RECORDS)
    with pytest.warns(UserWarning, match="has 1 test captions where 5000 are published"):
        Flickr30k(root=str(root)).splits()


def test_a_missing_picture_is_named(tmp_path):
    root = write_karpathy(tmp_path, "dataset_flickr30k.json", FLICKR_RECORDS)
    (root / "images" / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"dataset_flickr30k\.json record 3"):
        Flickr30k(root=str(root)).splits()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "How to get it"),
        ("[]", "list 'images'"),
        ('{"images": 3}', "list 'images'"),
        ('{"images": [{"split": "train"}]}', "record 1: expected split, filename and sentences"),
        ('{"images": [7]}', "record 1"),
        ('{"images": [{"split": "other", "filename": "a", "sentences": []}]}', "record 1"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "dataset_flickr30k.json").write_text(content)
    with pytest.raises(DataError, match=message):
        Flickr30k(root=str(tmp_path)).splits()


def test_a_path_outside_the_folder_is_not_read(tmp_path):
    inside = write_karpathy(tmp_path / "data", "dataset_flickr30k.json", FLICKR_RECORDS[:1])
    (tmp_path / "secret.jpg").write_bytes((inside / "images" / "1.jpg").read_bytes())
    records = [karpathy_record("../secret.jpg", "train", ["A coat"])]
    (inside / "dataset_flickr30k.json").write_text(json.dumps({"images": records}))
    with pytest.raises(DataError, match="expected a path relative to"):
        Flickr30k(root=str(inside)).splits()


def test_the_datasets_have_names():
    assert dataset_named("mscoco", "elsewhere") == MsCoco(root="elsewhere")
    with pytest.raises(DataError, match="Did you mean 'flickr30k'"):
        dataset_named("flickr_30k")
