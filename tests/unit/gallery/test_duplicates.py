"""Known pictures are added again, and hostile input."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import FilterError, GalleryError, GalleryWarning
from finegrain.gallery import Gallery
from tests.unit.gallery.damaging import overwrite_vector, stored_vector

DIM = 4
HOSTILE = [
    "'; DROP TABLE picture; --",
    '" OR 1=1 --',
    "%",
    "x\0y",
    "$.a",
    '["a"]',
    "\\",
    "?1",
    ":name",
]


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        opened.add(np.eye(3, DIM), ["a", "b", None], pids=[1, 2, 3])
        yield opened


def best(gallery: Gallery) -> list[int]:
    return [hits[0].id for hits in gallery.search(np.eye(DIM), 1)]


# --- duplicates -------------------------------------------------------------------------


def test_by_default_a_path_may_have_several_pictures(gallery: Gallery):
    assert gallery.add(np.eye(2, DIM), ["a", "a"]) == [4, 5]
    assert len(gallery) == 5


def test_skipping_keeps_the_picture_and_returns_its_id(gallery: Gallery):
    vectors = np.eye(DIM)[[3, 3, 3, 3]]
    ids = gallery.add(vectors, ["new", "b", None, "a"], pids=[9, 9, 9, 9], on_duplicate="skip")
    assert ids == [4, 2, 5, 1]
    assert [row.pid for row in gallery.rows(gallery)] == [1, 2, 3, 9, 9]


def test_replacing_gives_the_new_picture_a_new_id(gallery: Gallery):
    gallery.add(np.eye(1, DIM), ["a"])
    assert best(gallery)[:3] == [1, 2, 3]
    assert gallery.add(np.eye(DIM)[[3]], ["a"], pids=[7], on_duplicate="replace") == [5]
    assert list(gallery) == [2, 3, 5]
    assert best(gallery)[1:] == [2, 3, 5]
    assert gallery.add(np.eye(1, DIM), ["z"], on_duplicate="replace") == [6]
    first_numbers = [stored_vector(gallery.path, slot)[0] for slot in range(6)]
    assert first_numbers == [0, 0, 0, 0, 0, 1]  # those of the replaced are gone


def test_a_duplicate_is_an_error_on_request(gallery: Gallery):
    with pytest.raises(GalleryError, match=r"holds 'b' already.*'skip'.*'replace'"):
        gallery.add(np.eye(2, DIM), ["new", "b"], on_duplicate="error")
    assert gallery.images() == {"a", "b"}
    assert gallery.add(np.eye(2, DIM), ["new", None], on_duplicate="error") == [4, 5]


@pytest.mark.parametrize("choice", ["skip", "replace", "error"])
def test_a_path_may_be_in_a_call_once(gallery: Gallery, choice):
    with pytest.raises(GalleryError, match="'x' is among the pictures more than once"):
        gallery.add(np.eye(3, DIM), ["x", "y", "x"], on_duplicate=choice)
    assert len(gallery) == 3
    assert len(gallery.add(np.eye(2, DIM), [None, None], on_duplicate=choice)) == 2


@pytest.mark.parametrize("choice", ["update", None, True, ""])
def test_other_choices_are_refused(gallery: Gallery, choice):
    with pytest.raises(GalleryError, match="on_duplicate is one of 'add', 'skip', 'replace'"):
        gallery.add(np.eye(1, DIM), ["x"], on_duplicate=choice)


def test_a_deletion_during_a_search_is_applied(gallery: Gallery, monkeypatch):
    """A search between start and commit of a deletion must not mark it as applied."""
    store, searched = gallery._store, threading.Event()
    original = store.delete

    def delete(*arguments):
        searching = threading.Thread(target=lambda: (best(gallery), searched.set()))
        searching.start()
        searching.join()
        return original(*arguments)

    monkeypatch.setattr(store, "delete", delete)
    gallery.delete([1])
    assert searched.is_set()
    assert {hit.id for hit in gallery.search(np.eye(1, DIM), 9)[0]} == {2, 3}


# --- hostile input ----------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_stored_as_texts(gallery: Gallery, text: str):
    (id_,) = gallery.add(
        np.eye(1, DIM), [text], cameras=[text], tracks=[text], metadata=[{text: text, "x": text}]
    )
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    for where in (f"image = {quoted}", f"track in ({quoted})", f"x = {quoted}"):
        assert [hit.id for hit in gallery.search(np.eye(1, DIM), 9, where)[0]] == [id_]
    row = gallery.rows([id_])[0]
    assert (row.image, row.camera, row.track) == (text, text, text)
    assert row.metadata == {text: text, "x": text}
    assert gallery.add(np.eye(1, DIM), [text], on_duplicate="skip") == [id_]
    assert gallery.delete_where(f"camera = {quoted}") == 1
    assert list(gallery) == [1, 2, 3]


@pytest.mark.parametrize("text", HOSTILE)
def test_filters_cannot_inject_sql(gallery: Gallery, text: str):
    for where in (text, f"pid = 1 {text}", f"{text} = 1", f"pid = {text}"):
        with pytest.raises(FilterError) as caught:
            gallery.delete_where(where)
        assert caught.value.args[0].splitlines()[-1].strip() == "^"
    assert list(gallery) == [1, 2, 3]


@pytest.mark.parametrize("id_", ["1; DROP TABLE picture", "1", 1.0, None, [1], 2**70])
def test_ids_must_be_numbers(gallery: Gallery, id_):
    for method in (lambda: gallery.delete([id_]), lambda: gallery.rows([id_])):
        if isinstance(id_, int):
            assert method() in (0, [])
        else:
            with pytest.raises(GalleryError, match="Ids are whole numbers"):
                method()
    assert len(gallery) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_damaged_vector_is_reported_and_left_out(gallery: Gallery, value: float):
    overwrite_vector(gallery.path, 1, np.full(DIM, value))
    with pytest.warns(GalleryWarning, match="the vector of picture 2 is damaged"):
        hits = gallery.search(np.eye(1, DIM), 3)
    assert sorted(hit.id for hit in hits[0]) == [1, 3]
    assert any("picture 2 does not agree with" in fault for fault in gallery.check().faults)
