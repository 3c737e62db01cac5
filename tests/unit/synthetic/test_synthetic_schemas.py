"""Fixtures in the layout of the real datasets."""

from __future__ import annotations

import json

import pytest
from fixtures.person_layouts import write_fixture
from PIL import Image

from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    PERSON_DATASETS,
    RSTPREID,
    UFINE6926,
)
from finegrain.data.person_json import read_people
from finegrain.errors import DataError

FIELDS = {
    "cuhk_pedes": ["split", "captions", "file_path", "processed_tokens", "id"],
    "icfg_pedes": ["split", "captions", "file_path", "processed_tokens", "id"],
    "rstpreid": ["id", "img_path", "captions", "split"],
    "ufine6926": ["split", "id", "file_path", "captions"],
}


@pytest.fixture(scope="module", params=PERSON_DATASETS, ids=lambda dataset: dataset.name)
def copy(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("fixture") / request.param.title
    return request.param, write_fixture(request.param, root, identities=6)


def test_the_reader_reads_the_complete_fixture(copy):
    dataset, root = copy
    splits = read_people(root, dataset)
    with_val = dataset in (CUHK_PEDES, RSTPREID)
    assert list(splits) == (["train", "val", "test"] if with_val else ["train", "test"])
    assert [split.num_pids for split in splits.values()] == ([4, 1, 1] if with_val else [5, 1])
    assert not any(split.problems for split in splits.values())
    first = splits["train"].samples[0]
    assert first.pid == (1 if dataset in (CUHK_PEDES, UFINE6926) else 0)
    assert len(first.captions) == (1 if dataset is ICFG_PEDES else 2)
    with Image.open(first.image) as picture:
        assert picture.size == (64, 128)


def test_schema_and_folders_equal_those_of_the_dataset(copy):
    dataset, root = copy
    records = json.loads((root / dataset.annotations[0]).read_text())
    assert all(list(record) == FIELDS[dataset.name] for record in records)
    images = root / dataset.image_roots[0]
    folders = {path.name for path in images.iterdir() if path.is_dir()}
    assert folders == set(dataset.folders)
    assert all(any((images / name).rglob("*.jpg")) for name in folders)


def test_cameras_are_known_if_the_dataset_has_them(copy):
    dataset, root = copy
    cameras = {sample.camera for sample in read_people(root, dataset)["train"].samples}
    expected = {
        CUHK_PEDES.name: set(CUHK_PEDES.folders),
        ICFG_PEDES.name: {"01", "02", "03"},
        RSTPREID.name: {"c1", "c2", "c3", "c4", "c5"},
        UFINE6926.name: {None},
    }
    assert cameras <= expected[dataset.name]


def test_icfg_pedes_folders_are_not_its_splits(tmp_path):
    root = write_fixture(ICFG_PEDES, tmp_path / "set")
    train = read_people(root, ICFG_PEDES)["train"]
    assert {sample.image.parts[-3] for sample in train.samples} == {"train", "test"}


def test_a_folder_with_files_is_not_changed(tmp_path):
    (tmp_path / "reid_raw.json").write_text("the real one")
    with pytest.raises(DataError, match="expected an empty folder"):
        write_fixture(CUHK_PEDES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["reid_raw.json"]
    with pytest.raises(DataError, match="expected an empty folder"):
        write_fixture(CUHK_PEDES, tmp_path / "reid_raw.json")


def test_too_few_people_for_the_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected at least 3, got 2"):
        write_fixture(RSTPREID, tmp_path / "set", identities=2)
