from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    PERSON_DATASETS,
    RSTPREID,
    UFINE6926,
    Counts,
)
from finegrain.data.person_json import read_people
from finegrain.errors import DataError


def record(path="cam_a/1.png", **changes):
    fields = {
        "split": "train",
        "captions": ["A man in a red coat."],
        "file_path": path,
        "processed_tokens": [["a", "man"]],
        "id": 1,
    }
    return fields | changes


def write(root: Path, records, *, name="reid_raw.json", folder="imgs", without=()):
    root.joinpath(name).write_text(json.dumps(records))
    for entry in records:
        path = entry.get("file_path", entry.get("img_path"))
        picture = root / folder / path
        if path not in without and picture.resolve().is_relative_to(root.resolve()):
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.touch()
    return root


def test_reads_every_split(tmp_path):
    records = [
        record("cam_a/1.png", captions=["one", "two"]),
        record("CUHK01/2.png", id=7, split="test"),
        record("train_query/3.jpg", id=11003, split="val"),
        record("cam_b/4.png", id=1),
    ]
    splits = read_people(write(tmp_path, records), CUHK_PEDES)
    assert list(splits) == ["train", "val", "test"]
    first, second = splits["train"].samples
    assert first.image == tmp_path / "imgs" / "cam_a" / "1.png"
    assert first.captions == ("one", "two")
    assert (first.pid, first.camera, second.camera) == (1, "cam_a", "cam_b")
    assert splits["train"].num_pids == 1
    assert (splits["val"].samples[0].pid, splits["test"].samples[0].camera) == (11003, "CUHK01")


@pytest.mark.parametrize("name", ["reid_raw.json", "caption_all.json"])
@pytest.mark.parametrize("folder", ["imgs", "."])
def test_copies_of_other_layouts_are_read(tmp_path, name, folder):
    moved = record(id=0)
    moved["img_path"] = moved.pop("file_path")
    splits = read_people(write(tmp_path, [moved], name=name, folder=folder), CUHK_PEDES)
    assert splits["train"].samples[0].image == tmp_path / folder / "cam_a" / "1.png"
    assert list(splits) == ["train"]


def test_a_picture_without_a_folder_has_no_camera(tmp_path):
    splits = read_people(write(tmp_path, [record("1.png")]), CUHK_PEDES)
    assert splits["train"].samples[0].camera is None


def test_missing_pictures_and_captions_are_problems(tmp_path):
    records = [
        record("cam_a/1.png"),
        record("cam_a/gone.png"),
        record("Market/2.png", split="test", id=2),
        record("cam_a/3.png", captions=["", "  "]),
    ]
    root = write(tmp_path, records, without=("cam_a/gone.png", "Market/2.png"))
    splits = read_people(root, CUHK_PEDES)
    assert len(splits["train"]) == 1
    gone, blank = splits["train"].problems
    assert gone.where == "reid_raw.json record 2"
    assert "'cam_a/gone.png' not found under" in gone.why
    assert str(blank) == "reid_raw.json record 4: has no caption"
    assert len(splits["test"]) == 0
    assert splits["test"].problems[0].where == "reid_raw.json record 3"


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "cam_a/../../secret.png", "/etc/passwd", "C:/x.png", "cam_a\\1.png", "a\0b"],
)
def test_paths_outside_the_folder_are_never_followed(tmp_path, path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    write(root, [record(), record("cam_a/2.png")])
    records = [record(), record(path)]
    (root / "reid_raw.json").write_text(json.dumps(records))
    (problem,) = read_people(root, CUHK_PEDES)["train"].problems
    assert "expected a path relative to" in problem.why


def test_the_error_without_any_picture_names_the_searched_folders(tmp_path):
    (tmp_path / "reid_raw.json").write_text(json.dumps([record()]))
    with pytest.raises(DataError, match=r"got none of them; .*/imgs or .*doctor data cuhk_pedes"):
        read_people(tmp_path, CUHK_PEDES)


def test_annotations_without_records_are_refused(tmp_path):
    (tmp_path / "reid_raw.json").write_text("[]")
    with pytest.raises(DataError, match="holds no records"):
        read_people(tmp_path, CUHK_PEDES)


@pytest.mark.parametrize("dataset", PERSON_DATASETS, ids=lambda dataset: dataset.name)
@pytest.mark.parametrize("root", [".", "nowhere"])
def test_the_error_of_missing_annotations_tells_how_to_get_them(tmp_path, dataset, root):
    with pytest.raises(DataError) as raised:
        read_people(tmp_path / root, dataset)
    message = str(raised.value)
    assert f"{dataset.annotations[-1]} in {tmp_path / root}, found none" in message
    assert f"How to get it: {dataset.access}" in message
    assert f"finegrain doctor data {dataset.name} {tmp_path / root}" in message


@pytest.mark.parametrize("text", ["[{]", "\xff", "[" * 100_000, "{}", '"x"'])
def test_broken_json_is_refused(tmp_path, text):
    (tmp_path / "reid_raw.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"expected (JSON|a list of records) in"):
        read_people(tmp_path, CUHK_PEDES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "Dev"}, "expected split to be train, val or test, got 'dev'"),
        ({"split": 3}, "expected split as str, got 3"),
        ({"id": "12"}, "expected id as int, got '12'"),
        ({"id": True}, "expected id as int, got True"),
        ({"captions": "a man"}, "expected captions as list, got 'a man'"),
        ({"captions": [3]}, "expected captions as text, got 3"),
        ({"file_path": None}, "expected file_path as str, got None"),
    ],
)
def test_wrong_types_name_record_and_field(tmp_path, changes, message):
    write(tmp_path, [record(), record()])
    (tmp_path / "reid_raw.json").write_text(json.dumps([record(), record(**changes)]))
    with pytest.raises(DataError, match=f"record 2: {message}"):
        read_people(tmp_path, CUHK_PEDES)


@pytest.mark.parametrize("name", ["split", "id", "captions"])
def test_missing_fields_are_named(tmp_path, name):
    entry = record()
    del entry[name]
    (tmp_path / "caption_all.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=f"record 1: expected a field '{name}', found "):
        read_people(tmp_path, CUHK_PEDES)


def test_a_record_that_is_not_an_object_is_refused(tmp_path):
    (tmp_path / "reid_raw.json").write_text("[[1]]")
    with pytest.raises(DataError, match="record 1: expected an object, got list"):
        read_people(tmp_path, CUHK_PEDES)


def test_an_oversized_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("finegrain.data.person_json._MAX_BYTES", 1)
    (tmp_path / "reid_raw.json").write_text("[]")
    with pytest.raises(DataError, match="smaller than 1 GB"):
        read_people(tmp_path, CUHK_PEDES)


def test_a_blank_caption_among_others_is_left_out_and_reported(tmp_path):
    root = write(tmp_path, [record(captions=["one", " ", "three"])])
    train = read_people(root, CUHK_PEDES)["train"]
    assert train.samples[0].captions == ("one", "three")
    assert [str(problem) for problem in train.problems] == [
        "reid_raw.json record 1: has a blank caption"
    ]


def test_a_record_without_captions_is_a_problem(tmp_path):
    root = write(tmp_path, [record(captions=[]), record("cam_a/2.png")])
    train = read_people(root, CUHK_PEDES)["train"]
    assert len(train) == 1
    assert train.problems[0].why == "has no caption"


def test_a_person_in_two_splits_is_named(tmp_path):
    records = [record(id=pid, split=split) for pid in range(7) for split in ("train", "test")]
    records += [record(id=6, split="val"), record(id=9, split="val")]
    with pytest.raises(DataError) as raised:
        read_people(write(tmp_path, records), CUHK_PEDES)
    message = str(raised.value)
    assert "train and val to have no identity in common, got 1: 6;" in message
    assert "train and test to have no identity in common, got 7: 0, 1, 2, 3, 4, …;" in message
    assert "val and test to have no identity in common, got 1: 6." in message


# --- differences between the datasets ---------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "path", "camera"),
    [
        (CUHK_PEDES, "Market/0002_c1s1.jpg", "Market"),
        (CUHK_PEDES, "imgs/cam_a/1.jpg", "cam_a"),
        (CUHK_PEDES, "1.jpg", None),
        (ICFG_PEDES, "test/0627/0627_010_05_0303afternoon_1591_1.jpg", "05"),
        (ICFG_PEDES, "test/0627/1.jpg", None),
        (RSTPREID, "3901_c14_0007.jpg", "c14"),
        (RSTPREID, "imgs/0.jpg", None),
        (UFINE6926, "images/1.jpg", None),
    ],
)
def test_the_camera_is_read_from_the_path(tmp_path, dataset, path, camera):
    write(tmp_path, [record(path)], name=dataset.annotations[0], folder=dataset.image_roots[0])
    assert read_people(tmp_path, dataset)["train"].samples[0].camera == camera


@pytest.mark.parametrize(
    "name", ["UFine6926_Annotations_1024.json", "ufine6926.json", "my_UFine6926_v2.json"]
)
def test_ufine_is_read_under_other_file_names(tmp_path, name):
    write(tmp_path, [record("images/1.jpg")], name=name, folder=".")
    (tmp_path / "UFine3C.json").write_text("[]")
    assert len(read_people(tmp_path, UFINE6926)["train"]) == 1


def test_two_candidate_files_are_refused(tmp_path):
    for name in ("UFine6926_a.json", "UFine6926_b.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(DataError, match=r"one annotation file in .*UFine6926_a.json, UFine6926_b"):
        read_people(tmp_path, UFINE6926)


def small(dataset, **pictures):
    """The dataset, with the published numbers of pictures set to these."""
    sizes = {
        name: Counts(identities=count, pictures=count, captions=count)
        for name, count in pictures.items()
    }
    return replace(dataset, published=sizes)


def unsplit(count):
    records = [record(f"{i}.jpg", id=i) for i in range(count)]
    for entry in records:
        del entry["split"]
    return records


def test_rstpreid_without_splits_is_split_by_position(tmp_path):
    root = write(tmp_path, unsplit(8), name="data_captions.json")
    splits = read_people(root, small(RSTPREID, train=4, val=2, test=1))
    pids = {name: [sample.pid for sample in split.samples] for name, split in splits.items()}
    assert pids == {"train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7]}


def test_rstpreid_where_some_records_lack_a_split_is_damaged(tmp_path):
    root = write(tmp_path, [*unsplit(2), record("3.jpg")], name="data_captions.json")
    with pytest.raises(DataError, match="record 1: expected a field 'split'"):
        read_people(root, RSTPREID)


def test_only_rstpreid_is_split_by_position(tmp_path):
    root = write(tmp_path, unsplit(2), name="caption_all.json")
    with pytest.raises(DataError, match=r"record 1: expected a field 'split'.*every record has it"):
        read_people(root, CUHK_PEDES)


@pytest.mark.parametrize(
    ("index", "split"),
    [
        (0, "train"),
        (18504, "train"),
        (18505, "val"),
        (19504, "val"),
        (19505, "test"),
        (99999, "test"),
    ],
)
def test_positions_of_the_splits_of_rstpreid(index, split):
    assert RSTPREID.published_split(index) == split
    assert CUHK_PEDES.published_split(index) is None


# --- any mixture of variants, compared with a literal implementation --------------------

entries = st.lists(
    st.fixed_dictionaries(
        {
            "split": st.sampled_from(["train", "val", "test", "Train", "TEST"]),
            "pid": st.integers(0, 5),
            "captions": st.lists(st.sampled_from(["a man", "a red coat", "", " "]), max_size=4),
            "field": st.sampled_from(["file_path", "img_path"]),
            "folder": st.sampled_from(["", "cam_a/", "cam_b/", "train/0007/"]),
            "there": st.booleans(),
            "root": st.sampled_from([0, -1]),
        }
    ),
    min_size=1,
    max_size=12,
)


def read_literally(dataset, root, entries):
    """Samples by split as ``(image, captions, pid)``, by a literal implementation."""
    result = {}
    for number, entry in enumerate(entries):
        captions = tuple(text for text in entry["captions"] if text.strip())
        images = [root / name / path_of(number, entry) for name in dataset.image_roots]
        image = next((path for path in images if path.exists()), None)
        if captions and image:
            split = entry["split"].lower()
            result.setdefault(split, []).append((image, captions, pid_of(entry)))
    return result


def path_of(number, entry):
    return f"{entry['folder']}{number}.jpg"


def pid_of(entry):
    """Ids with gaps; two splits have no id in common."""
    return {"train": 0, "val": 100, "test": 1000}[entry["split"].lower()] + 7 * entry["pid"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PERSON_DATASETS), st.integers(0, 1), entries)
def test_any_mixture_is_read_as_by_the_literal_implementation(dataset, name, entries):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        raw = []
        for number, entry in enumerate(entries):
            path = path_of(number, entry)
            fields = {key: entry[key] for key in ("split", "captions")}
            raw.append({**fields, entry["field"]: path, "id": pid_of(entry)})
            if entry["there"]:
                picture = root / dataset.image_roots[entry["root"]] / path
                picture.parent.mkdir(parents=True, exist_ok=True)
                picture.touch()
        annotations = dataset.annotations[name % len(dataset.annotations)]
        annotations = annotations if "*" not in annotations else "ufine6926_v2.json"
        (root / annotations).write_text(json.dumps(raw))
        expected = read_literally(dataset, root, entries)
        if not expected:
            with pytest.raises(DataError, match="got none of them"):
                read_people(root, dataset)
            return
        splits = read_people(root, dataset)
        read = {
            split: [(sample.image, sample.captions, sample.pid) for sample in splits[split].samples]
            for split in splits
            if splits[split].samples
        }
        assert read == expected
        complete = sum(
            entry["there"] and bool(entry["captions"]) and all(map(str.strip, entry["captions"]))
            for entry in entries
        )
        problems = sum(len(split.problems) for split in splits.values())
        assert problems == 0 if complete == len(entries) else problems > 0
