from __future__ import annotations

import json
from pathlib import Path

import pytest

from finegrain.data.cuhk_pedes import read_cuhk_pedes
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
    splits = read_cuhk_pedes(write(tmp_path, records))
    assert list(splits) == ["train", "val", "test"]
    first, second = splits["train"].samples
    assert first.image == tmp_path / "imgs" / "cam_a" / "1.png"
    assert first.captions == ("one", "two")
    assert (first.pid, first.camera, second.camera) == (1, "cam_a", "cam_b")
    assert splits["train"].num_pids == 1
    assert (splits["val"].samples[0].pid, splits["test"].samples[0].camera) == (11003, "CUHK01")


@pytest.mark.parametrize("name", ["reid_raw.json", "caption_all.json"])
@pytest.mark.parametrize("folder", ["imgs", "."])
def test_copies_of_other_layouts(tmp_path, name, folder):
    moved = record(id=0)
    moved["img_path"] = moved.pop("file_path")
    splits = read_cuhk_pedes(write(tmp_path, [moved], name=name, folder=folder))
    assert splits["train"].samples[0].image == tmp_path / folder / "cam_a" / "1.png"
    assert list(splits) == ["train"]


def test_a_picture_beside_the_annotations_has_no_camera(tmp_path):
    splits = read_cuhk_pedes(write(tmp_path, [record("1.png")]))
    assert splits["train"].samples[0].camera is None


def test_missing_pictures_and_captions_are_problems(tmp_path):
    records = [
        record("cam_a/1.png"),
        record("cam_a/gone.png"),
        record("Market/2.png", split="test"),
        record("cam_a/3.png", captions=["", "  "]),
    ]
    root = write(tmp_path, records, without=("cam_a/gone.png", "Market/2.png"))
    splits = read_cuhk_pedes(root)
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
def test_paths_that_lead_out_are_never_followed(tmp_path, path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    write(root, [record(), record("cam_a/2.png")])
    records = [record(), record(path)]
    (root / "reid_raw.json").write_text(json.dumps(records))
    (problem,) = read_cuhk_pedes(root)["train"].problems
    assert "expected a path relative to" in problem.why


def test_no_picture_at_all_says_where_it_looked(tmp_path):
    (tmp_path / "reid_raw.json").write_text(json.dumps([record()]))
    with pytest.raises(DataError, match=r"got none of them; .*/imgs or "):
        read_cuhk_pedes(tmp_path)


def test_no_records_at_all(tmp_path):
    (tmp_path / "reid_raw.json").write_text("[]")
    with pytest.raises(DataError, match="holds no records"):
        read_cuhk_pedes(tmp_path)


def test_no_annotations(tmp_path):
    with pytest.raises(DataError, match=r"reid_raw\.json or caption_all\.json in .*found neither"):
        read_cuhk_pedes(tmp_path)


@pytest.mark.parametrize("text", ["[{]", "\xff", "[" * 100_000, "{}", '"x"'])
def test_broken_json(tmp_path, text):
    (tmp_path / "reid_raw.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"expected (JSON|a list of records) in"):
        read_cuhk_pedes(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "expected split to be train, val or test, got 'dev'"),
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
        read_cuhk_pedes(tmp_path)


@pytest.mark.parametrize("name", ["split", "id", "captions"])
def test_missing_fields_are_named(tmp_path, name):
    entry = record()
    del entry[name]
    (tmp_path / "caption_all.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=f"record 1: expected a field '{name}', found "):
        read_cuhk_pedes(tmp_path)


def test_a_record_that_is_no_object(tmp_path):
    (tmp_path / "reid_raw.json").write_text("[[1]]")
    with pytest.raises(DataError, match="record 1: expected an object, got list"):
        read_cuhk_pedes(tmp_path)


def test_an_oversized_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("finegrain.data.cuhk_pedes._MAX_BYTES", 1)
    (tmp_path / "reid_raw.json").write_text("[]")
    with pytest.raises(DataError, match="smaller than 1 GB"):
        read_cuhk_pedes(tmp_path)
