from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixtures.person_layouts import write_fixture
from PIL import Image

from finegrain.data.datasets import (
    Catalog,
    CuhkPedes,
    IcfgPedes,
    LabelledPhotos,
    RstpReid,
    SyntheticPeople,
    Ufine6926,
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
        (sample,) = take_split(dataset.splits(), "test").samples
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


def test_a_missing_split_is_an_error(folder):
    Image.new("RGB", (20, 40), (16, 46, 200)).save(folder / "2.png")
    (folder / "labels.csv").write_text("file,label,split\n1.png,coat,test\n2.png,coat,train\n")
    with pytest.raises(DataError, match="the dataset has no split 'val'; it has test, train"):
        take_split(LabelledPhotos(root=str(folder)).splits(), "val")


# --- person-search datasets are read completely or not at all ---------------------------

PERSON_SEARCH = (CuhkPedes, IcfgPedes, RstpReid, Ufine6926)


@pytest.fixture(scope="module", params=PERSON_SEARCH, ids=lambda kind: kind.__name__)
def drawn(request, tmp_path_factory):
    kind = request.param
    root = tmp_path_factory.mktemp("drawn") / kind.known.title
    return kind, write_fixture(kind.known, root, identities=3)


@pytest.fixture
def copy(drawn, tmp_path):
    kind, root = drawn
    return kind, Path(shutil.copytree(root, tmp_path / root.name))


def test_a_complete_copy_is_read(copy):
    kind, root = copy
    splits = kind(root=str(root)).splits()
    assert {"train", "test"} <= splits.keys()
    assert not any(split.problems for split in splits.values())


def test_datasets_have_default_folders():
    assert [kind().root for kind in PERSON_SEARCH] == [
        f"data/{kind.known.title}" for kind in PERSON_SEARCH
    ]


def test_a_missing_picture_is_an_error_unless_allowed(copy):
    kind, root = copy
    whole = kind(root=str(root)).splits()["train"]
    whole.samples[0].image.unlink()
    with pytest.raises(DataError) as raised:
        kind(root=str(root)).splits()
    message = str(raised.value)
    assert f"every picture and caption of {root}, got 1 records without: " in message
    assert "record 1: picture" in message
    assert f"finegrain doctor data {kind.known.name} {root}" in message
    assert "--set data.allow_missing=true" in message
    allowed = kind(root=str(root), allow_missing=True).splits()["train"]
    assert allowed.samples == whole.samples[1:]
    assert len(allowed.problems) == 1


def test_the_first_three_missing_pictures_are_named(copy):
    kind, root = copy
    missing = kind(root=str(root)).splits()["train"].samples[1:]
    for sample in missing:
        sample.image.unlink()
    with pytest.raises(DataError, match=f"got {len(missing)} records without: ") as raised:
        kind(root=str(root)).splits()
    assert str(raised.value).count(" record ") == min(3, len(missing))


def test_sizes_that_differ_from_the_published_ones_are_reported(copy):
    kind, root = copy
    with pytest.warns(UserWarning, match=r"not comparable with published results: .*published"):
        kind(root=str(root)).splits()


@pytest.mark.parametrize("allow_missing", [False, True])
def test_a_split_without_pictures_is_an_error(copy, allow_missing):
    kind, root = copy
    for sample in kind(root=str(root)).splits()["test"].samples:
        sample.image.unlink()
    with pytest.raises(
        DataError, match=r"pictures in split test of .*, got none for its \d records"
    ):
        kind(root=str(root), allow_missing=allow_missing).splits()


def test_the_error_of_a_missing_dataset_tells_how_to_get_it(tmp_path):
    for kind in PERSON_SEARCH:
        with pytest.raises(DataError) as raised:
            kind(root=str(tmp_path / "nowhere")).splits()
        assert f"How to get it: {kind.known.access}" in str(raised.value)


def test_a_dataset_without_validation_has_no_such_split(tmp_path):
    root = write_fixture(IcfgPedes.known, tmp_path / "set", identities=3)
    with pytest.raises(DataError, match="the dataset has no split 'val'; it has test, train"):
        take_split(IcfgPedes(root=str(root)).splits(), "val")
