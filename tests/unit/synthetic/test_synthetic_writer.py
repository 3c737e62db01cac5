"""Datasets on disk: layout, reuse, and the same bytes for any number of workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import pytest

from finegrain.errors import DataError
from finegrain.synthetic import (
    ATTRIBUTE_QUERIES,
    DETAIL_QUERIES,
    identities,
    matches,
    read_attributes,
    view_of,
    write_people,
)
from finegrain.synthetic.writer import assign_splits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_people(
        tmp_path_factory.mktemp("people") / "set",
        identities=20,
        pictures_per_identity=2,
        workers=1,
        progress=False,
    )


def _files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_layout_is_that_of_cuhk_pedes(root):
    raw = json.loads((root / "reid_raw.json").read_text())

    assert len(raw) == 40
    for record in raw:
        assert set(record) == {"split", "captions", "file_path", "processed_tokens", "id"}
        assert record["split"] in ("train", "val", "test")
        assert record["file_path"].split("/")[0].startswith("cam_")
        assert cv2.imread(str(root / "imgs" / record["file_path"])).shape == (128, 64, 3)
        assert len(record["captions"]) == len(record["processed_tokens"]) == 2
        for caption, tokens in zip(record["captions"], record["processed_tokens"], strict=True):
            assert 8 <= len(tokens) <= 60
            assert all(token in caption.lower() for token in tokens)
    assert {record["id"] for record in raw} == set(range(1, 21))


def test_attributes_agree_with_the_annotations(root):
    raw = json.loads((root / "reid_raw.json").read_text())
    records = read_attributes(root)

    for record, entry in zip(records, raw, strict=True):
        assert record.file_path == entry["file_path"]
        assert record.id == entry["id"]
        assert record.split == entry["split"]
        assert list(record.captions) == entry["captions"]
        assert len(record.swapped_captions) == 2
        assert record.attributes["camera"] == record.camera
        assert record.attributes["facing"] in ("front", "side", "back")
        assert all(isinstance(v, str | bool | None) for v in record.attributes.values())


def test_an_identity_and_its_partner_are_in_one_split():
    people = identities(300)
    for splits in ({"train": 0.8, "val": 0.1, "test": 0.1}, {"train": 201, "val": 50, "test": 49}):
        names = assign_splits(people, splits)
        assert len(names) == 300
        assert set(names) == {"train", "val", "test"}
        assert abs(names.count("train") - (240 if splits["train"] == 0.8 else 201)) <= 1
        for identity in people:
            if identity.swap_pid is not None:
                assert names[identity.pid - 1] == names[identity.swap_pid - 1]


@pytest.mark.parametrize("splits", [{}, {"train": 0.5}, {"train": 5, "test": 4}, {"train": -1.0}])
def test_splits_that_do_not_add_up_are_refused(splits):
    with pytest.raises(DataError, match="add up"):
        assign_splits(identities(10), splits)


def test_workers_do_not_change_a_byte(root, tmp_path):
    write_people(
        tmp_path / "two", identities=20, pictures_per_identity=2, workers=2, progress=False
    )

    assert _files(tmp_path / "two") == _files(root)


def test_the_same_settings_reuse_the_folder(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    write_people(root, identities=20, pictures_per_identity=2, progress=False)

    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_other_settings_are_refused_in_a_used_folder(root):
    with pytest.raises(DataError, match="Give another folder"):
        write_people(root, identities=21, pictures_per_identity=2, progress=False)


def test_an_interrupted_run_is_completed_with_the_same_bytes(root, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / "synthetic.json").rename(broken / "synthetic.json.started")
    (broken / "reid_raw.json").unlink()
    next(broken.rglob("*.jpg")).write_bytes(b"half a picture")
    write_people(broken, identities=20, pictures_per_identity=2, progress=False)
    files = {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}
    again = {path.relative_to(broken): path.read_bytes() for path in broken.rglob("*.*")}
    assert again == files


SCRIPT = """
import sys
from finegrain.synthetic import write_people
if __name__ == "__main__":
    write_people(sys.argv[1], identities=60, pictures_per_identity=2, workers=2, progress=False)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to kill")
def test_a_killed_run_is_continued_with_the_same_bytes(tmp_path):
    """Killed with its workers, as by the system, after some pictures were written."""
    script, folder = tmp_path / "draw.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script, folder], start_new_session=True) as drawing:
        while len(list(folder.rglob("*.jpg"))) < 10 and drawing.poll() is None:
            time.sleep(0.01)
        os.killpg(drawing.pid, signal.SIGKILL)
    drawn = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert 10 <= len(drawn) < 120
    write_people(folder, identities=60, pictures_per_identity=2, workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    whole = write_people(
        tmp_path / "whole", identities=60, pictures_per_identity=2, workers=1, progress=False
    )
    assert _files(folder) == _files(whole)


def test_two_processes_draw_one_folder_once(tmp_path):
    script, folder = tmp_path / "draw.py", tmp_path / "people"
    script.write_text(SCRIPT)
    both = [subprocess.Popen([sys.executable, script, folder]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(folder.rglob("*.jpg"))) == 120


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="got neither"):
        write_people(tmp_path, identities=1, progress=False)
    with pytest.raises(DataError, match="Give another folder"):
        write_people(tmp_path / "notes.txt", identities=1, progress=False)
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON"):
        write_people(tmp_path, identities=1, progress=False)


@pytest.mark.parametrize(
    "wrong", [{"identities": 0}, {"pictures_per_identity": 0}, {"workers": 0}, {"size": (8, 8)}]
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match="expected"):
        write_people(tmp_path / "none", **{"identities": 2, "progress": False, **wrong})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ('{"id": 1}', "missing"),
        ('"id": true', "expected a JSON object"),
    ],
)
def test_an_invalid_attribute_line_is_named(root, tmp_path, line, says):
    good = (root / "attributes.jsonl").read_text().splitlines()[0]
    (tmp_path / "attributes.jsonl").write_text(f"{good}\n{line}\n")

    with pytest.raises(DataError, match=rf"attributes.jsonl:2: .*{says}"):
        read_attributes(tmp_path)


def test_an_attribute_of_the_wrong_type_is_named(root, tmp_path):
    record = json.loads((root / "attributes.jsonl").read_text().splitlines()[0])
    (tmp_path / "attributes.jsonl").write_text(json.dumps({**record, "id": "7"}))

    with pytest.raises(DataError, match="'id' to be int, got '7'"):
        read_attributes(tmp_path)


def test_a_missing_attribute_file_is_named(tmp_path):
    with pytest.raises(DataError, match="Give the folder that write_people wrote"):
        read_attributes(tmp_path)


def test_twenty_queries_have_enough_answers_each():
    rows = [
        {
            **identity.person.attributes(),
            "facing": view_of(identity, picture).facing,
            "camera": view_of(identity, picture).camera.name,
        }
        for identity in identities(600)
        for picture in range(4)
    ]

    assert len(ATTRIBUTE_QUERIES) == 20
    assert len({query.text for query in ATTRIBUTE_QUERIES}) == 20
    for query in (*ATTRIBUTE_QUERIES, *DETAIL_QUERIES):
        assert set(query.predicate) <= set(rows[0]), query.text
        result = sum(matches(row, query.predicate) for row in rows)
        assert 12 <= result <= 0.25 * len(rows), (query.text, result)


def test_a_predicate_allows_one_value_or_several():
    coat = {"upper": "coat", "upper_color": "red", "umbrella": False, "bag": None}

    assert matches(coat, {"upper": "coat", "upper_color": ("red", "pink")})
    assert matches(coat, {"bag": None, "umbrella": False})
    assert not matches(coat, {"upper_color": ("blue", "green")})
    assert not matches(coat, {"upper": "coa"})
    assert not matches(coat, {"hat": "cap"})
