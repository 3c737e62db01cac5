from __future__ import annotations

import csv

import pytest
from PIL import Image

from finegrain.data.labelled_photos import read_labelled_photos
from finegrain.errors import DataError

RED, BLUE = (200, 16, 46), (40, 64, 200)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name, color in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (40, 60), color).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    return tmp_path


def table(folder, rows, *, header=("file", "label", "split")):
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_captions_name_the_label_and_the_measured_colour(photos):
    rows = [
        ("pictures/red.png", "Dress", "train"),
        ("pictures/blue.png", "Hat", "validation"),
        ("pictures/blue.png", "Hat", "test"),
    ]
    splits = read_labelled_photos(table(photos, rows))
    assert set(splits) == {"train", "val", "test"}
    (dress,), (hat,) = splits["train"].samples, splits["val"].samples
    assert dress.captions == ("Dress", "red Dress", "a photo of a red Dress")
    assert dress.metadata == {"label": "Dress", "color": "red"}
    assert dress.image == photos / "pictures" / "red.png"
    assert hat.metadata["color"] == "blue"
    assert dress.pid != hat.pid
    assert all(split.problems == () for split in splits.values())


def test_other_columns_are_ignored(photos):
    path = table(
        photos,
        [("3", "train", "Dress", "pictures/red.png")],
        header=("id", "split", "label", "file"),
    )
    assert read_labelled_photos(path)["train"].samples[0].metadata["label"] == "Dress"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("pictures/broken.png", "broken.png"),
        ("pictures/absent.png", "absent.png"),
        ("../outside.png", "expected a path relative to"),
        ("/etc/hostname", "expected a path relative to"),
    ],
)
def test_an_unreadable_picture_is_a_problem_with_its_line(file, why, photos):
    rows = [("pictures/red.png", "Dress", "train"), (file, "Hat", "train")]
    train = read_labelled_photos(table(photos, rows))["train"]
    assert len(train) == 1
    (problem,) = train.problems
    assert problem.where == "labels.csv:3"
    assert why in problem.why


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no table of labels at .*labels\.csv; set its folder"):
        read_labelled_photos(tmp_path / "labels.csv")


@pytest.mark.parametrize("header", [("file", "label"), ("image", "label", "split"), ()])
def test_a_missing_column_is_named(header, photos):
    with pytest.raises(DataError, match=r"needs the columns .*'split'.*it has"):
        read_labelled_photos(table(photos, [], header=header))


def test_a_table_without_a_readable_picture_is_refused(photos):
    path = table(photos, [("pictures/broken.png", "Dress", "train")])
    with pytest.raises(DataError, match=r"no picture of .* can be read; the first: labels\.csv:2"):
        read_labelled_photos(path)


MAIMED = [
    pytest.param(("pictures/red.png", "Dress"), id="no split"),
    pytest.param(("pictures/red.png",), id="no label"),
    pytest.param(("pictures/red.png", "  ", "train"), id="blank label"),
    pytest.param(("pictures/red\0.png", "Dress", "train"), id="NUL"),
]


@pytest.mark.parametrize("row", MAIMED)
def test_a_damaged_row_is_a_problem_with_its_line(row, photos):
    rows = [("pictures/red.png", "Dress", "train"), row]
    splits = read_labelled_photos(table(photos, rows))
    problems = [problem for split in splits.values() for problem in split.problems]
    assert [problem.where for problem in problems] == ["labels.csv:3"]
    assert sum(len(split) for split in splits.values()) == 1


def test_a_table_without_rows_is_refused(photos):
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labelled_photos(table(photos, []))


def test_a_table_in_another_encoding_is_read(photos):
    path = photos / "labels.csv"
    path.write_bytes("file,label,split\npictures/red.png,Märchenkleid,train\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labelled_photos(path)
