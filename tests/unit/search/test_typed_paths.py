"""Paths of pictures that are typed or pasted as the text of a query."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finegrain.search.queries import path_note, typed_file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my crops").mkdir()
    for name in ("a.jpg", "b c.JPG", "my crops/Größe.png", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("  a.jpg\n", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("~/a.jpg", "a.jpg"),
        ("{home}/a.jpg", "a.jpg"),
        ("'{home}/a.jpg'", "a.jpg"),
        ('"~/b c.JPG"', "b c.JPG"),
        ("“a.jpg”", "a.jpg"),
        ("b c.JPG", "b c.JPG"),
        ("my crops/Größe.png", "my crops/Größe.png"),
        ("file://{home}/my%20crops/Gr%C3%B6%C3%9Fe.png", "my crops/Größe.png"),
        ("file://localhost{home}/a.jpg", "a.jpg"),
        ("FILE:{home}/a.jpg", "a.jpg"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="addresses of files have a drive on Windows")
def test_an_existing_picture_is_recognised(home: Path, typed: str, name: str):
    file = typed_file(typed.format(home=home))
    assert file is not None
    assert file.samefile(home / name)


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", "'", "''", "~", "red coat", "a", "notes.txt", "my crops", "none.jpg", "a\0.jpg",
        "a dress as in a.jpg", "http://shop/a.jpg", "file://server/a.jpg", "file://[a.jpg",
        "x" * 5000 + ".jpg", "\ud800.jpg", "~nobody-of-this-name/a.jpg",
    ],
)  # fmt: skip
def test_other_texts_are_not_paths(home: Path, typed: str):
    assert typed_file(typed) is None


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("~/a.jpg", "looks like the path of a picture; search by the picture with"),
        ("'nowhere/a.jpg'", "looks like the path of a picture, which does not exist"),
        ("http://shop/a.jpg?width=9", "looks like an address; download the picture"),
        ("http://[shop/a.jpg", "looks like an address; download the picture"),
        ("~/my crops", "is a folder; search by one of its pictures"),
        ("./my crops/", "is a folder"),
        ("my crops", None),
        ("a dress as in a.jpg", None),
        ("~", "is a folder"),
        ("red coat", None),
    ],
)
def test_a_text_like_a_path_gets_a_note(home: Path, typed: str, note: str | None):
    told = path_note(typed)
    assert note in told if note is not None and told is not None else told is note


def test_without_a_home_folder_a_tilde_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert typed_file("~/a.jpg") is None
    assert "does not exist" in (path_note("~/a.jpg") or "")
