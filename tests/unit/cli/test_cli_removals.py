"""`--sync` needs a permission to follow a folder that is partly emptied."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.cli.parser import main
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.search.sync import checked_allowance, refused_removals


@pytest.fixture
def folder(plan: Path, tmp_path: Path) -> Path:
    """Two folders inside one: 12 pictures in `a`, and 3 in `share`."""
    root = tmp_path / "crops"
    random = np.random.default_rng(0)
    for name, count in (("a", 12), ("share", 3)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    assert main(["index", str(plan), str(root)]) == 0
    return root


def sync(folder: Path, *words: str) -> int:
    return main(["index", str(folder.with_name("model.plan")), str(folder), "--sync", *words])


def num_stored(folder: Path) -> int:
    with Gallery(folder.with_name("model.gallery")) as gallery:
        return len(gallery)


def test_half_of_a_folder_is_not_removed_without_a_permission(folder: Path, capsys):
    for number in range(7):
        (folder / "a" / f"{number:02d}.png").unlink()
    capsys.readouterr()
    assert sync(folder) == 3
    shown = capsys.readouterr()
    assert "kept 7 that are gone" in shown.out
    assert "--allow-removing 7" in shown.out
    assert str(folder / "a" / "03.png") in shown.out
    assert "kept 7 pictures that are gone" in shown.err
    assert sync(folder, "--allow-removing", "6") == 3
    assert num_stored(folder) == 15
    assert sync(folder, "--allow-removing", "7", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "would have removed 7 that are gone" in shown
    assert str(folder / "a" / "03.png") in shown
    assert num_stored(folder) == 15
    assert sync(folder, "--allow-removing", "all") == 0
    assert num_stored(folder) == 8


def test_a_few_pictures_are_removed_without_a_permission(folder: Path):
    (folder / "a" / "00.png").unlink()
    assert sync(folder) == 0
    assert num_stored(folder) == 14
    (folder / "a" / "01.png").unlink()
    assert sync(folder, "--allow-removing", "0") == 3
    assert num_stored(folder) == 14


def test_pictures_of_an_unmounted_share_are_kept(folder: Path, capsys):
    for path in (folder / "share").iterdir():
        path.unlink()
    (folder / "a" / "00.png").unlink()
    Image.new("RGB", (8, 8)).save(folder / "a" / "new.png")
    assert sync(folder) == 3  # new pictures are added, and the other missing file is removed
    assert "kept 3 that are gone" in capsys.readouterr().out
    assert num_stored(folder) == 15
    (folder / "share").rmdir()  # a folder that does not exist is not an empty mount point
    assert sync(folder) == 0
    assert num_stored(folder) == 12


def test_the_permission_also_applies_to_an_empty_folder(folder: Path, capsys):
    for path in sorted(folder.rglob("*.png")):
        path.unlink()
    assert sync(folder) == 1
    assert sync(folder, "--allow-removing", "14") == 1
    assert "has 15 pictures of it; they stay" in capsys.readouterr().err
    assert sync(folder, "--allow-removing", "15", "--dry-run") == 0
    assert num_stored(folder) == 15
    assert sync(folder, "--allow-empty") == 0
    assert num_stored(folder) == 0


@pytest.mark.parametrize(
    ("num_gone", "num_of_source", "is_refused"),
    [(5, 5, False), (6, 30, False), (6, 29, True), (20, 100, False), (21, 100, True)],
)
def test_a_fifth_of_the_pictures_needs_no_permission(
    num_gone: int, num_of_source: int, is_refused: bool
):
    remove = {id_: f"nowhere/{id_}.jpg" for id_ in range(num_gone)}
    refused = refused_removals(remove, num_of_source, "a table", None)
    assert refused == (set(remove) if is_refused else set())


@pytest.mark.parametrize("allowed", [-1, True, 1.5, "ten", "", [1]])
def test_a_permission_is_a_number_or_all(allowed):
    with pytest.raises(GalleryError, match="allow_removing is a number"):
        checked_allowance(allowed)


@pytest.mark.parametrize("word", ["-1", "ten", "1.5", ""])
def test_the_option_is_checked(folder: Path, word: str, capsys):
    with pytest.raises(SystemExit):
        sync(folder, f"--allow-removing={word}")
    assert "expected a number or 'all'" in capsys.readouterr().err
    assert os.path.isdir(folder)
