"""Every file of a folder is a picture, or is reported with its kind."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from finegrain.errors import ImageError
from finegrain.preprocess.folder import read_folder
from finegrain.records import ProblemKind


def picture(path, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), "red").save(path, kind)
    return path


def names(root, folder):
    return [path.relative_to(root).as_posix() for path in folder.pictures]


def kinds(root, folder):
    return {os.path.relpath(problem.where, root): problem.kind for problem in folder.problems}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("name", ["a", "a.jpg?v=1", "a.dat", "a.JFIF"])
def test_a_picture_is_recognised_under_any_name(tmp_path, kind, name):
    picture(tmp_path / name, kind)
    assert names(tmp_path, read_folder(tmp_path)) == [name]


def test_all_other_files_are_reported_by_kind(tmp_path):
    picture(tmp_path / "a.jpg")
    contents = {
        "notes.md": ProblemKind.ENDING, "empty": ProblemKind.ENDING, "a.csv": ProblemKind.TABLE,
        "s.tar": ProblemKind.TABLE, "gate.mp4": ProblemKind.VIDEO, "Thumbs.db": ProblemKind.SYSTEM,
        ".DS_Store": ProblemKind.SYSTEM, "._a.jpg": ProblemKind.SYSTEM,
    }  # fmt: skip
    for name in contents:
        (tmp_path / name).write_bytes(b"" if name == "empty" else b"text")
    for folder in ("@eaDir", "__MACOSX", ".Trash-1000"):
        picture(tmp_path / folder / "x.jpg")
        contents[folder] = ProblemKind.SYSTEM
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    contents |= {"pipe": ProblemKind.ENDING, "lost": ProblemKind.DEAD_LINK}
    folder = read_folder(tmp_path)
    assert names(tmp_path, folder) == ["a.jpg"]
    assert kinds(tmp_path, folder) == contents


def test_linked_folders_are_followed_once(tmp_path):
    root = tmp_path / "crops"
    picture(root / "b.jpg")
    picture(tmp_path / "nas" / "a.jpg")
    picture(tmp_path / "nas" / "deep" / "c.jpg")
    for link, target in (("gate", "../nas"), ("again", "../nas"), ("loop", "../crops")):
        (root / link).symlink_to(target)
    (tmp_path / "nas" / "up").symlink_to(root)
    folder = read_folder(root)
    assert names(root, folder) == ["again/a.jpg", "again/deep/c.jpg", "b.jpg"]
    assert kinds(root, folder) == {
        "gate": ProblemKind.LINK, "loop": ProblemKind.LINK, "again/up": ProblemKind.LINK,
    }  # fmt: skip


def test_a_link_never_hides_the_folder_itself(tmp_path):
    picture(tmp_path / "z" / "a.jpg")
    (tmp_path / "a").symlink_to("z")
    assert names(tmp_path, read_folder(tmp_path)) == ["z/a.jpg"]


def test_a_linked_picture_is_a_picture(tmp_path):
    picture(tmp_path / "nas" / "a.jpg")
    root = tmp_path / "crops"
    root.mkdir()
    (root / "b.jpg").symlink_to("../nas/a.jpg")
    assert names(root, read_folder(root)) == ["b.jpg"]


def test_excluded_files_are_counted(tmp_path):
    for name in ("a.jpg", "b.png", "old/c.jpg", "old/deep/d.jpg", "new/e.jpg"):
        picture(tmp_path / name)
    folder = read_folder(tmp_path, exclude=["*.png", "old/*"])
    assert names(tmp_path, folder) == ["a.jpg", "new/e.jpg"]
    assert set(kinds(tmp_path, folder)) == {"b.png", "old/c.jpg", "old/deep"}
    assert set(kinds(tmp_path, folder).values()) == {ProblemKind.EXCLUDED}


def test_unpacked_pictures_are_not_read_again(tmp_path):
    (tmp_path / "s.tar").write_bytes(b"x")
    picture(tmp_path / "s.tar.pictures" / "a.jpg")
    picture(tmp_path / "my.pictures" / "b.jpg")
    assert names(tmp_path, read_folder(tmp_path)) == ["my.pictures/b.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "closed").mkdir(mode=0)
    assert kinds(tmp_path, read_folder(tmp_path)) == {"closed": ProblemKind.FOLDER}


def test_a_folder_that_fails_to_list_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "bad" / "b.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "bad":
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    folder = read_folder(tmp_path)
    assert names(tmp_path, folder) == ["a.jpg"]
    assert kinds(tmp_path, folder) == {"bad": ProblemKind.FOLDER}
    with pytest.raises(ImageError, match="cannot be listed"):
        read_folder(tmp_path / "bad")
