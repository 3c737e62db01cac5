"""Indexing again over the command line: changed, moved, missing and left out pictures."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from finegrain.cli.parser import main
from finegrain.gallery import Gallery


@pytest.fixture
def shop(plan: Path, crops: Path, tmp_path: Path) -> Path:
    for name in "abc":
        shutil.copy(crops / f"0{ord(name) - 97}.jpg", tmp_path / f"{name}.jpg")
    write(tmp_path, "a.jpg,red coat,10,R1", "b.jpg,blue coat,20,B1")
    return tmp_path


def write(folder: Path, *rows: str) -> None:
    (folder / "t.csv").write_text("\n".join(["image,caption,price,sku", *rows]) + "\n")


def index(folder: Path, *words: str | Path) -> int:
    return main(["index", str(folder / "model.plan"), *map(str, words)])


def matches(folder: Path, capsys, *words: str) -> list[dict]:
    capsys.readouterr()
    assert main(["query", str(folder / "model.plan"), "coat", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_changes_of_a_table_reach_the_gallery(shop, capsys):
    table = [shop / "t.csv", "--pid-column", "sku"]
    assert index(shop, *table) == 0
    write(shop, "a.jpg,red coat,8,R1", "c.jpg,green coat,5,G1")
    assert index(shop, *table) == 0
    shown = capsys.readouterr().out
    assert "1 of these differ from the input" in shown
    assert "in all: added 1, updated 0, moved 0, unchanged 1, removed 0, left out 0" in shown
    assert index(shop, *table, "--sync", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "would have updated the columns of 1" in shown
    assert "would have removed 1 that are gone" in shown
    assert index(shop, *table, "--replace") == 0
    assert {m["pid"]: m["metadata"]["price"] for m in matches(shop, capsys)} == {
        "R1": 8, "B1": 20, "G1": 5
    }  # fmt: skip
    assert index(shop, *table, "--sync") == 0
    assert {m["pid"] for m in matches(shop, capsys)} == {"R1", "G1"}


def test_an_overwritten_picture_is_encoded_again(shop, capsys):
    assert index(shop, shop / "a.jpg") == 0
    shutil.copy(shop / "b.jpg", shop / "a.jpg")
    assert index(shop, shop / "a.jpg", "--replace") == 0
    assert "encoded again 1 that have changed" in capsys.readouterr().out
    query = ["query", str(shop / "model.plan"), "--image", str(shop / "a.jpg"), "--json"]
    assert main(query) == 0
    (match,) = json.loads(capsys.readouterr().out)
    assert match["score"] == pytest.approx(1, abs=1e-4)


def test_a_moved_folder_is_recognised_or_reported(shop, capsys):
    (shop / "crops").mkdir()
    (shop / "a.jpg").rename(shop / "crops" / "a.jpg")
    assert index(shop, shop / "crops", "--metadata", "note=mine") == 0
    (shop / "crops").rename(shop / "archive")
    gallery = str(shop / "model.gallery")
    assert main(["doctor", gallery]) == 0
    shown = capsys.readouterr().out
    assert "the files of 1 pictures are gone" in shown
    assert str(shop / "crops" / "a.jpg") in shown
    assert index(shop, shop / "archive", "--sync") == 0
    assert "updated the paths of 1 that have moved" in capsys.readouterr().out
    (shop / "archive").rename(shop / "third")
    assert main(["gallery", "move", gallery, str(shop / "archive"), str(shop / "third")]) == 0
    assert "moved 1 pictures" in capsys.readouterr().out
    (match,) = matches(shop, capsys)
    assert (match["image"], match["metadata"]) == (str(shop / "third" / "a.jpg"), {"note": "mine"})
    assert main(["gallery", "move", gallery, "nowhere", "x"]) == 1
    assert "no picture of" in capsys.readouterr().err


def test_columns_are_set(shop, capsys):
    assert index(shop, shop / "t.csv") == 0
    change = ["gallery", "set", str(shop / "model.gallery"), "sale=true", "camera=3"]
    assert main([*change, "--where", "price > 15"]) == 0
    assert "set sale, camera of 1 pictures" in capsys.readouterr().out
    (match,) = matches(shop, capsys, "--where", "sale = true")
    assert (match["camera"], match["metadata"]["caption"]) == ("3", "blue coat")
    assert main([*change, "--where", "caption = 'Blue coat'"]) == 1
    assert "there is 'blue coat'" in capsys.readouterr().err
    change = ["gallery", "set", str(shop / "model.gallery"), "price=abc", "--where", "price > 15"]
    assert main(change) == 1
    shown = capsys.readouterr()
    assert "the column 'price' holds number, and 'abc' is text" in shown.err
    assert shown.out == ""
    (match,) = matches(shop, capsys, "--where", "price = 20")


def test_the_advice_of_a_failed_reindex_works(shop, capsys):
    assert index(shop, shop / "a.jpg", shop / "b.jpg") == 0
    with sqlite3.connect(shop / "model.gallery") as connection:
        connection.execute("UPDATE gallery SET fingerprint = 'of an older plan'")
    (shop / "a.jpg").unlink()
    again = ["index", str(shop / "model.plan"), "--reindex"]
    assert main(again) == 1
    assert "--drop-unreadable" in capsys.readouterr().out
    assert main([*again, "--drop-unreadable"]) == 0
    with Gallery(shop / "model.gallery") as gallery:
        assert [Path(image).name for image in gallery.images()] == ["b.jpg"]


def test_expired_pictures_are_reported(shop, capsys):
    old = ["--metadata", "time=2020-05-01", "--expire-days", "30"]
    assert index(shop, shop / "a.jpg", *old) == 1
    shown = capsys.readouterr()
    assert "1 picture whose time is over" in shown.out
    assert "nothing was added" in shown.err


def test_all_pictures_that_were_left_out_are_listed_in_a_file(shop, capsys):
    folder = shop / "many"
    folder.mkdir()
    shutil.copy(shop / "a.jpg", folder / "a.jpg")
    for number in range(12):
        (folder / f"{number:02d}.jpg").write_bytes(b"broken")
    assert index(shop, folder, "--max-bad-share", "1") == 0
    shown = capsys.readouterr().out
    assert "left out 12 (12 unreadable picture):" in shown
    assert "... and 2 more" in shown
    names = shop / "model.gallery.left-out.txt"
    assert f"all 12 that were left out are listed in {names}" in shown
    lines = names.read_text().splitlines()
    assert len(lines) == 12
    assert all(line.startswith("unreadable picture\t") for line in lines)
    if os.name == "posix":
        assert stat.S_IMODE(names.stat().st_mode) == 0o600
    assert index(shop, shop / "b.jpg") == 0
    assert not names.exists()


@pytest.mark.parametrize("words", [["broken.jpg"], ["broken.jpg", "empty"]])
def test_adding_no_picture_is_a_failure(shop, capsys, words):
    (shop / "broken.jpg").write_bytes(b"broken")
    (shop / "empty").mkdir()
    assert index(shop, *[shop / word for word in words]) == 1
    assert "broken.jpg" in "".join(capsys.readouterr())


def test_an_unreadable_source_does_not_stop_the_others(shop, capsys):
    (shop / "bad.csv").write_text("nothing\n")
    assert index(shop, shop / "bad.csv", shop / "a.jpg") == 3
    shown = capsys.readouterr()
    assert "in all: added 1, updated 0, moved 0, unchanged 0, removed 0, left out 1" in shown.out
    assert "bad.csv" in shown.err


def test_a_dry_run_makes_no_gallery(shop, capsys):
    before = sorted(os.listdir(shop))
    assert index(shop, shop / "a.jpg", shop / "t.csv", "--dry-run") == 0
    assert "would have added 1 pictures" in capsys.readouterr().out
    assert sorted(os.listdir(shop)) == before


@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_an_empty_source_removes_pictures_only_with_permission(shop, capsys, how):
    folder = shop / "crops"
    folder.mkdir()
    shutil.copy(shop / "a.jpg", folder)
    write(shop, "b.jpg,blue coat,20,B1")
    assert index(shop, folder, shop / "t.csv") == 0
    shutil.rmtree(folder)
    if how == "emptied":
        folder.mkdir()
        write(shop)
    else:
        (shop / "t.csv").unlink()
    for source in (folder, shop / "t.csv"):
        for words in (["--sync"], ["--sync", "--dry-run"]):
            assert index(shop, source, *words) == 1
            assert "has 1 pictures of it; they stay" in capsys.readouterr().err
    assert len(matches(shop, capsys)) == 2
    assert index(shop, folder, "--sync", "--allow-empty", "--dry-run") == 0
    assert len(matches(shop, capsys)) == 2
    assert index(shop, folder, shop / "t.csv", "--sync", "--allow-empty") == 0
    with Gallery(shop / "model.gallery") as gallery:
        assert len(gallery) == 0


def test_a_linked_folder_that_is_not_mounted_keeps_its_pictures(shop, capsys):
    (shop / "nas").mkdir()
    (shop / "crops").mkdir()
    shutil.copy(shop / "a.jpg", shop / "crops")
    shutil.copy(shop / "b.jpg", shop / "nas")
    (shop / "crops" / "gate-1").symlink_to(shop / "nas")
    assert index(shop, shop / "crops") == 0
    (shop / "nas").rename(shop / "unmounted")
    assert index(shop, shop / "crops", "--sync") == 0
    shown = capsys.readouterr().out
    assert "kept 1 that may be gone" in shown
    assert "1 link that leads nowhere" in shown
    assert len(matches(shop, capsys)) == 2


def test_a_folder_in_place_of_a_gallery_is_refused(shop, capsys, monkeypatch):
    monkeypatch.chdir(shop)
    for place in (".", str(shop)):
        assert index(shop, shop / "a.jpg", "--gallery", place) == 1
        assert "is a folder" in capsys.readouterr().err
