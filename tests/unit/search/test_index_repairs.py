"""Indexing pictures again repairs what is damaged of them, also in a new process."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery import Gallery
from tests.unit.gallery.damaging import flip, flip_vector, overwrite_vector, place_of
from tests.unit.search.test_sync import Eye, add, picture

COUNT = 6


def run_sql(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    return damage


def lose_slot(path: Path) -> None:
    flip_vector(path, 2, byte=3)
    flip(path, place_of(path, 2, "ids"), 0x40)
    flip(path, place_of(path, 2, "checksums"))


KEPT: dict[str, Callable[[Path], None]] = {
    "a bit of a vector": lambda path: flip_vector(path, 2, byte=3),
    "another vector": lambda path: overwrite_vector(path, 2, np.float32([0, 0, 1])),
    "a lost slot": lose_slot,
    "a checksum": run_sql("UPDATE picture SET vector_checksum = 7 WHERE id = 3"),
}
"""Damage that leaves the columns intact."""

LOST: dict[str, Callable[[Path], None]] = {
    "a column": run_sql("UPDATE picture SET camera = 'gate-9' WHERE id = 3"),
    "a metadata value": run_sql("UPDATE attribute SET value = 'blue' WHERE picture = 3"),
    "the time of expiry": run_sql("UPDATE picture SET expires_at = '2020' WHERE id = 3"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pictures = [picture(tmp_path / "p" / f"{i}.png", 20 + 30 * i) for i in range(COUNT)]
    with Gallery(tmp_path / "g", dim=3) as gallery:
        add(gallery, pictures, {"camera": "gate-1", "colour": "red"}, source=tmp_path / "p")
        gallery.update([3], {"note": "set by hand"})
    return tmp_path / "g"


@pytest.mark.filterwarnings("ignore::finegrain.errors.GalleryWarning")
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, "add") for kind in [*KEPT, *LOST]),
        ("a bit of a vector", "replace"),
        ("a lost slot", "sync"),
        ("a column", "sync"),
    ],
)
def test_indexing_again_repairs_damaged_pictures(path: Path, kind: str, mode: str):
    (KEPT | LOST)[kind](path)
    eye = Eye()
    folder = path.parent / "p"
    with Gallery(path) as other:
        with Gallery(path) as gallery:
            assert not gallery.check().is_valid
        other._store.rows([3])
        other._store.vectors([3])
        assert other.damaged() == {3}
        with Gallery(path) as gallery:  # as in a new process
            how = {mode: True} if mode != "add" else {}
            result = add(gallery, folder, {"camera": "gate-1", "colour": "red"}, eye=eye, **how)
            assert eye.seen == [str(folder / "2.png")]
            assert (result.num_reencoded, result.num_new) == ((1, 0) if kind in KEPT else (0, 1))
            assert gallery.damaged() == frozenset()
            assert gallery.check().is_valid
            (row,) = gallery.rows([7])
            assert row.camera == "gate-1"
            assert row.metadata.get("note") == ("set by hand" if kind in KEPT else None)
        assert other.damaged() == frozenset()
        assert sorted(hit.id for hit in other.search(np.eye(1, 3), 9)[0]) == [1, 2, 4, 5, 6, 7]


def test_a_dry_run_says_what_is_damaged(path: Path):
    flip_vector(path, 2)
    with Gallery(path) as gallery, pytest.warns(UserWarning, match="vector of picture 3 is"):
        result = add(gallery, path.parent / "p", dry_run=True)
    assert "would have encoded again 1 that have changed or were damaged" in str(result)


def test_indexing_an_intact_gallery_again_encodes_nothing(path: Path):
    eye = Eye()
    with Gallery(path) as gallery, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert add(gallery, path.parent / "p", eye=eye).num_known == COUNT
    assert eye.seen == []


@pytest.mark.filterwarnings("ignore::finegrain.errors.GalleryWarning")
@pytest.mark.parametrize("kind", ["a bit of a vector", "a column", "the time of expiry"])
def test_a_damaged_picture_can_be_deleted_by_id(path: Path, kind: str):
    (KEPT | LOST)[kind](path)
    with Gallery(path) as gallery:
        assert gallery.delete([3]) == 1
        assert gallery.damaged() == frozenset()
        assert gallery.check().is_valid
