from __future__ import annotations

import json

import pytest
from fixtures.shop_layouts import write_fashion_iq

from finegrain.data.fashion_iq import FASHION_IQ, read_fashion_iq, read_gallery
from finegrain.errors import DataError


@pytest.fixture
def copy(tmp_path):
    return write_fashion_iq(tmp_path, triplets=2)


def change(file, **fields):
    records = json.loads(file.read_text())
    records[0] |= fields
    file.write_text(json.dumps(records))


def test_a_triplet_is_a_target_with_its_reference(copy):
    splits = read_fashion_iq(copy)
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "val": 6}
    first, second = splits["train"].samples[:2]
    assert len(first.captions) == 2
    assert first.metadata["category"] == "dress"
    assert first.image.stem == first.metadata["target"] == second.metadata["reference"]
    assert first.metadata["reference_image"].endswith(f"{first.metadata['reference']}.jpg")
    assert splits["train"].num_pids == 6


def test_other_suffixes_and_a_folder_for_each_category_are_read(copy):
    sample = read_fashion_iq(copy)["val"].samples[-1]
    moved = copy / "images" / "toptee" / sample.image.with_suffix(".png").name
    moved.parent.mkdir()
    sample.image.rename(moved)
    assert read_fashion_iq(copy)["val"].samples[-1].image == moved


def test_missing_pictures_and_invalid_records_are_problems(copy):
    change(copy / "captions" / "cap.shirt.val.json", captions=["", " "])
    change(copy / "captions" / "cap.toptee.val.json", captions="is red")
    change(copy / "captions" / "cap.toptee.train.json", target=None)
    read_fashion_iq(copy)["val"].samples[0].image.unlink()
    splits = read_fashion_iq(copy)
    result = [(p.where, p.why.partition("'")[0]) for s in splits.values() for p in s.problems]
    assert result == [
        ("cap.toptee.train.json record 1", "its picture None not found under " + str(copy)),
        # The target of one record and the reference of the next.
        ("cap.dress.val.json record 1", "its picture "),
        ("cap.dress.val.json record 2", "its picture "),
        ("cap.shirt.val.json record 1", "has no caption"),
        ("cap.toptee.val.json record 1", "expected a list of captions, got "),
    ]


def test_the_two_galleries_differ_and_are_named(copy):
    whole = read_gallery(copy, "dress", "val", "split")
    union = read_gallery(copy, "dress", "val", "union")
    assert (len(whole.images), len(union.images)) == (4, 3)
    assert set(union.images) < set(whole.images)
    assert str(union) == "FashionIQ dress val, union gallery: 3 pictures"
    next(iter(whole.images.values())).unlink()
    left = read_gallery(copy, "dress", "val", "split")
    assert (left.named, len(left.images)) == (4, 3)
    assert str(left).endswith("split gallery: 3 pictures of 4; the rest is missing")
    with pytest.raises(DataError, match="expected names of pictures for dress test"):
        read_gallery(copy, "dress", "test", "union")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{broken", "expected JSON"), ("{}", "expected a list"), ("[1]", "record 1: expected an obj")],
)
def test_files_in_another_format_are_refused(copy, content, message):
    (copy / "captions" / "cap.dress.val.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_fashion_iq(copy)


def test_the_error_of_a_missing_dataset_tells_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"found none\. How to get it: clone"):
        read_fashion_iq(tmp_path)
    with pytest.raises(DataError, match="expected JSON at"):
        read_gallery(tmp_path, "dress", "val", "split")


def test_differences_from_the_published_size_are_reported(copy):
    result = [problem.why for problem in FASHION_IQ.differences(read_fashion_iq(copy))]
    assert len(result) == 6
    assert result[0] == "has 2 train dress triplets where 5985 are published"
