"""``finegrain gallery delete``: dry runs, questions and deletion."""

from __future__ import annotations

import io
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.gallery import Gallery


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "model.gallery", dim=2) as gallery:
        gallery.add(
            np.tile(np.float32([1, 0]), (14, 1)),
            [None, *(f"/crops/{n}.jpg" for n in range(2, 14)), "/crops/\x1b[2J.jpg"],
            cameras=["gate-1"] * 12 + ["Gate-3"] * 2,
        )
    return tmp_path / "model.gallery"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def delete(path: Path, *words: str) -> int:
    return main(["gallery", "delete", str(path), *words])


def ids(path: Path) -> list[int]:
    with Gallery(path) as gallery:
        return list(gallery)


def test_a_dry_run_shows_the_number_and_the_first_ten(path: Path, capsys):
    assert delete(path, "--where", "camera = 'gate-1'", "--dry-run") == 0
    *rows, more, count = capsys.readouterr().out.splitlines()
    expected = [["1", "(no file)"], *([str(n), f"/crops/{n}.jpg"] for n in range(2, 11))]
    assert [row.split(maxsplit=1) for row in rows] == expected
    assert (more.strip(), count) == ("and 2 more", "would delete 12 pictures")
    assert len(ids(path)) == 14


def test_matching_pictures_are_deleted(path: Path, capsys):
    assert delete(path, "--where", "camera = 'gate-1'", "--yes") == 0
    assert capsys.readouterr().out == "deleted 12 of 12 pictures\n"
    assert ids(path) == [13, 14]


def test_ids_are_deleted_and_unknown_ones_named(path: Path, capsys):
    assert delete(path, "--ids", "3, 4,4,99", "--yes") == 0
    shown = capsys.readouterr()
    assert shown.out == "deleted 2 of 2 pictures\n"
    assert shown.err == "note: no picture has id 99\n"
    assert set(range(1, 15)) - set(ids(path)) == {3, 4}


@pytest.mark.filterwarnings("ignore::finegrain.errors.GalleryWarning")
def test_a_damaged_picture_is_deleted_by_its_id(path: Path, capsys):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE picture SET camera = 'gate-9' WHERE id = 3")
    connection.close()
    assert delete(path, "--ids", "3", "--dry-run") == 0
    assert capsys.readouterr().out.split() == ["3", "(damaged)", "would", "delete", "1", "picture"]
    assert delete(path, "--ids", "3", "--yes") == 0
    with Gallery(path) as gallery:
        assert gallery.check().is_valid


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--where", "camera = 'gate-3'"], "there is 'Gate-3'"),
        (["--where", "pid = 7"], "no picture has a value in the column 'pid'"),
        (["--where", "id > 100"], "no picture matches"),
        (["--where", "kamera = 'gate-3'"], "Did you mean camera?"),
        (["--where", ""], "filter"),
        (["--where", "camera ="], "expected a value"),
        (["--ids", "0,-1,15"], "no picture has id -1, 0, 15"),
        (["--ids", f"{10**30}"], "id"),
    ],
)
@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_a_filter_without_matches_fails(
    path: Path, words: list[str], advice: str, option: str, capsys
):
    assert delete(path, *words, option) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert advice in shown.err
    assert len(ids(path)) == 14


@pytest.mark.parametrize("words", [[], ["--ids", "1", "--where", "id = 1"], ["--ids", "1,x"]])
def test_one_valid_choice_of_pictures_is_required(path: Path, words: list[str]):
    with pytest.raises(SystemExit) as caught:
        delete(path, *words, "--yes")
    assert caught.value.code == 2
    assert len(ids(path)) == 14


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), (" YES \n", 0), ("n\n", 1), ("\n", 1), ("", 1)]
)
def test_a_terminal_is_asked_for_confirmation(
    path: Path, answer: str, status: int, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert delete(path, "--ids", "14") == status
    shown = capsys.readouterr()
    assert f"delete 1 picture from {path}? [y/N] " in shown.err
    assert r"/crops/\x1b[2J.jpg" in shown.out
    assert (14 in ids(path)) == bool(status)


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_without_a_terminal_nothing_is_deleted(path: Path, stdin, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert delete(path, "--ids", "14") == 1
    assert "there is no terminal to confirm on. Add --yes" in capsys.readouterr().err
    assert 14 in ids(path)


def test_a_gallery_that_does_not_exist_is_not_created(tmp_path: Path, capsys):
    assert delete(tmp_path / "none", "--ids", "1", "--yes") == 1
    assert list(tmp_path.iterdir()) == []
