"""An unreadable input is left out, the others are indexed, and the exit status is 1."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finegrain.cli.parser import main
from finegrain.gallery import Gallery


def _broken(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


_BAD = {
    "missing folder": lambda folder: folder / "missing",
    "missing picture": lambda folder: folder / "missing.jpg",
    "missing table": lambda folder: folder / "missing.csv",
    "missing video": lambda folder: folder / "missing.mp4",
    "broken archive": lambda folder: _broken(folder / "broken.tar", b"not a tar"),
    "empty archive": lambda folder: _broken(folder / "empty.tar", b""),
    "broken Parquet": lambda folder: _broken(folder / "broken.parquet", b"PAR1 and no more"),
    "broken Excel": lambda folder: _broken(folder / "broken.xlsx", b"PK\x03\x04 and no more"),
    "broken JSON": lambda folder: _broken(folder / "broken.json", b'[{"image": '),
    "broken XML": lambda folder: _broken(folder / "broken.xml", b"<rss><channel>"),
    "broken picture": lambda folder: _broken(folder / "broken.jpg", b"\xff\xd8\xff\xe0 no more"),
    "broken video": lambda folder: _broken(folder / "broken.mp4", b"\0\0\0\x18ftypmp42"),
    "recording of a camera": lambda folder: _broken(folder / "cam.dav", b"DHAV"),
    "empty file": lambda folder: _broken(folder / "empty", b""),
    "empty folder": lambda folder: _empty_folder(folder / "nothing"),
    "table of nothing": lambda folder: _broken(folder / "nothing.csv", b"nothing\n"),
    "a plan": lambda folder: folder / "model.plan",
    "a null character": lambda folder: folder / "a\0b",
    "a name that is too long": lambda folder: folder / ("x" * 5000),
    "a link to itself": lambda folder: _loop(folder / "loop"),
    "a pipe": lambda folder: _pipe(folder / "pipe"),
    "a folder without valid Unicode": lambda folder: Path(os.fsdecode(bytes(folder) + b"/\xff")),
}


@pytest.mark.skipif(os.name != "posix", reason="some of these files exist on POSIX only")
@pytest.mark.parametrize("kind", _BAD)
def test_an_unreadable_input_is_left_out(
    plan: Path, crops: Path, tmp_path: Path, kind: str, capsys
):
    good = [tmp_path / "good", tmp_path / "good2"]
    for number, folder in enumerate(good):
        folder.mkdir()
        shutil.copy(crops / f"0{number}.jpg", folder)
    bad = _BAD[kind](tmp_path)
    assert main(["index", str(plan), str(good[0]), str(bad), str(good[1])]) == 3
    shown = capsys.readouterr()
    assert "in all: added 2, updated 0, moved 0, unchanged 0, removed 0, left out 1" in shown.out
    assert "1 of 3 inputs could not be read" in shown.err
    (line,) = plan.with_name("model.gallery.left-out.txt").read_text().splitlines()
    assert str(tmp_path) in line
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        assert len(gallery) == 2


def test_several_bad_inputs_are_each_counted(plan: Path, crops: Path, tmp_path: Path, capsys):
    bad = [tmp_path / "missing", tmp_path / "missing.jpg", _broken(tmp_path / "b.tar", b"x")]
    assert main(["index", str(plan), *map(str, bad), str(crops)]) == 3
    shown = capsys.readouterr()
    assert "added 12," in shown.out
    assert "left out 3" in shown.out
    assert "3 of 4 inputs could not be read" in shown.err
    assert main(["index", str(plan), *map(str, bad)]) == 1
