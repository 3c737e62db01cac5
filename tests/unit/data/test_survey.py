from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from fixtures.person_layouts import write_fixture

from finegrain.data.person_datasets import CUHK_PEDES, PERSON_DATASETS, RSTPREID, UFINE6926, Counts
from finegrain.data.person_json import read_people
from finegrain.data.survey import survey


def as_published(dataset, root):
    """Set the published counts to those of the copy in ``root``."""
    sizes = {name: Counts.of([split]) for name, split in read_people(root, dataset).items()}
    return replace(dataset, published=sizes)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_fixture(CUHK_PEDES, tmp_path_factory.mktemp("cuhk") / "set", identities=6)


@pytest.fixture
def root(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "set")


@pytest.fixture
def dataset(root):
    return as_published(CUHK_PEDES, root)


def change(root, edit):
    file = root / "reid_raw.json"
    records = json.loads(file.read_text())
    edit(records)
    file.write_text(json.dumps(records))


def row(result, *cells):
    """Whether the printed table has a row of these cells."""
    return any(line.split() == [*map(str, cells)] for line in str(result).splitlines())


def test_a_complete_copy_is_valid(root, dataset):
    result = survey(root, dataset)
    assert (result.faults, result.notes) == ((), ())
    assert result.splits == read_people(root, dataset)
    assert str(result).startswith(f"CUHK-PEDES in {root}\nannotations: reid_raw.json")
    assert "identities in two splits: none" in str(result)
    assert str(result).endswith("valid")
    assert "How to get it" not in str(result)
    assert row(result, "train", "pictures", 12, 12, "none")
    assert row(result, "test", "captions", 6, 6, "none")
    assert row(result, "cam_a", 3, 3, 0)


def test_a_folder_that_newer_archives_lack_is_optional(root, dataset):
    shutil.rmtree(root / "imgs" / "train_query")
    result = survey(root, dataset)
    lost = {folder.name: folder.missing for folder in result.folders}
    assert lost["train_query"] > 0
    assert sum(lost.values()) == lost["train_query"]
    assert row(result, "train_query", 0, lost["train_query"], lost["train_query"])
    assert any(
        "pictures or captions are missing; the first: reid_raw.json" in f for f in result.faults
    )
    assert f"How to get it: {CUHK_PEDES.access}" in str(result)


def test_lengths_of_captions_are_shown_in_words(root, dataset):
    def edit(records):
        for number, record in enumerate(records):
            record["captions"] = ["a man", "a man in a red coat"] if number else ["man " * 90] * 2

    change(root, edit)
    assert row(survey(root, dataset), "test", "4.0", "4.0", 6)
    assert row(survey(root, dataset), "train", "11.2", "6.0", 90)


def test_people_in_two_splits_are_a_fault(root, dataset):
    change(root, lambda records: records[-1].update(id=1))
    result = survey(root, dataset)
    shared = "expected train and test to have no identity in common, got 1: 1"
    assert result.overlaps == (shared,)
    assert shared in result.faults
    assert f"identities in two splits: {shared}" in str(result)


def test_another_size_of_the_test_split_is_a_fault(root, dataset):
    change(root, lambda records: records[-1]["captions"].append("a man"))
    result = survey(root, dataset)
    (fault,) = result.faults
    assert fault == "CUHK-PEDES test: has 7 captions where 6 are published"
    assert row(result, "test", "captions", 7, 6, "+1")


def test_more_training_captions_are_reported_and_not_a_fault(root, dataset):
    change(root, lambda records: records[0]["captions"].append("a man"))
    result = survey(root, dataset)
    assert result.faults == ()
    (note,) = result.notes
    assert note == "CUHK-PEDES train: has 25 captions where 24 are published"
    assert f"note: {note}" in str(result)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "holds no records"),
        ("[{]", "expected JSON"),
        ('[{"id": 1}]', "record 1: expected a field 'split', found 'id'"),
    ],
)
def test_unreadable_annotations_are_a_fault(root, dataset, text, why):
    (root / "reid_raw.json").write_text(text)
    result = survey(root, dataset)
    (fault,) = result.faults
    assert why in fault
    # The pictures are counted nevertheless.
    assert row(result, "cam_a", 3, 0, 0)


def test_missing_annotations_are_a_fault(root, dataset):
    (root / "reid_raw.json").unlink()
    result = survey(root, dataset)
    assert result.faults == (f"{root}: no reid_raw.json or caption_all.json",)
    assert "annotations: none" in str(result)


@pytest.mark.parametrize("dataset", PERSON_DATASETS, ids=lambda dataset: dataset.name)
def test_the_error_of_a_missing_folder_tells_how_to_get_it(tmp_path, dataset):
    result = survey(tmp_path / "nowhere", dataset)
    assert result.faults == (f"{tmp_path / 'nowhere'}: no such folder",)
    assert str(result).endswith(f"How to get it: {dataset.access}")


def test_pictures_without_a_folder_are_counted(tmp_path):
    root = write_fixture(RSTPREID, tmp_path / "set", identities=3)
    (folder,) = survey(root, RSTPREID).folders
    assert (folder.name, folder.files, folder.named, folder.missing) == (".", 15, 15, 0)


def test_the_total_is_compared_if_only_the_total_is_published(tmp_path):
    root = write_fixture(UFINE6926, tmp_path / "set", identities=3)
    result = survey(root, UFINE6926)
    assert row(result, "test", "pictures", 4, "not", "stated")
    assert row(result, "all", "identities", 3, 6926, "-6923")


def test_a_path_outside_the_folder_is_counted_and_not_followed(root, dataset):
    (root.parent / "secret").mkdir()
    (root.parent / "secret" / "1.jpg").touch()
    change(root, lambda records: records[0].update(file_path="../../secret/1.jpg"))
    folders = {folder.name: folder for folder in survey(root, dataset).folders}
    assert (folders[".."].files, folders[".."].named, folders[".."].missing) == (0, 1, 1)
