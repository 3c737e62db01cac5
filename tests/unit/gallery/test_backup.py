"""Copies of a gallery: backups are complete, and incomplete copies are detected."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery
from tests.unit.gallery.damaging import stored_vector, vectors_file

DIM = 4
ONE = np.eye(1, DIM)


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "g", fingerprint="plan-a", dim=DIM) as opened:
        opened.add(np.eye(3, DIM), ["a", "b", "c"], cameras=["x", "y", "x"])
        yield opened


def images(path: Path) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Gallery(path, create=False) as copy:
            assert copy.check().is_valid
            return copy.images()


def test_a_backup_of_an_open_gallery_is_complete(gallery: Gallery, tmp_path: Path):
    assert gallery.backup(tmp_path / "copy") == 3
    gallery.add(ONE, ["d"])
    assert images(tmp_path / "copy") == {"a", "b", "c"}
    with Gallery(tmp_path / "copy") as copy:
        assert (copy.fingerprint, copy.dim) == ("plan-a", DIM)
        assert copy.search(ONE, 1) == gallery.search(ONE, 1)
        copy.delete([1])
        assert copy.add(ONE, ["e"]) == [4]


def test_a_backup_has_no_deleted_bytes(gallery: Gallery, tmp_path: Path):
    with sqlite3.connect(tmp_path / "g") as connection:  # without secure_delete
        connection.execute("DELETE FROM picture WHERE camera = 'y'")
    gallery.backup(tmp_path / "copy")
    assert stored_vector(tmp_path / "g", 1).any()
    assert not stored_vector(tmp_path / "copy", 1).any()
    assert stored_vector(tmp_path / "copy", 2).any()


_WRITER = """
import sys
import numpy as np
from finegrain.gallery import Gallery

with Gallery(sys.argv[1]) as gallery:
    print("ready", flush=True)
    while True:
        ids = gallery.add(np.repeat(np.eye(1, 4), 7, axis=0), ["w"] * 7, tracks=["t" * 99] * 7)
        if ids[0] % 3 == 0:
            gallery.delete(ids[:7])
"""


def test_a_backup_during_writes_is_consistent(gallery: Gallery, tmp_path: Path):
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "g")], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        for number in range(15):
            count = gallery.backup(tmp_path / f"copy-{number}")
            with Gallery(tmp_path / f"copy-{number}") as copy:
                assert copy.check().is_valid
                assert len(copy) == count
                assert (count - 3) % 7 == 0
    finally:
        writer.kill()
        writer.wait()


def test_an_existing_file_is_replaced_only_on_request(gallery: Gallery, tmp_path: Path):
    gallery.backup(tmp_path / "copy")
    gallery.add(ONE, ["d"])
    before = (tmp_path / "copy").read_bytes()
    with pytest.raises(GalleryError, match=r"exists already.*--overwrite"):
        gallery.backup(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == before
    (tmp_path / "copy.tokens").touch()
    assert gallery.backup(tmp_path / "copy", overwrite=True) == 4
    assert images(tmp_path / "copy") == {"a", "b", "c", "d"}
    assert not (tmp_path / "copy.tokens").exists()
    names = ["copy", "copy.vectors", "g", "g-shm", "g-wal", "g.vectors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_backup_is_restored_by_backing_it_up(gallery: Gallery, tmp_path: Path):
    gallery.backup(tmp_path / "copy")
    gallery.delete([1, 2])
    with Gallery(tmp_path / "copy") as copy:
        with pytest.raises(GalleryError, match=r"g is in use.*g-wal"):
            copy.backup(tmp_path / "g", overwrite=True)
        gallery.close()
        copy.backup(tmp_path / "g", overwrite=True)
    assert images(tmp_path / "g") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("target", "message"),
    [("no/copy", "does not exist"), ("g", "is the gallery itself"), (".", "is not a file")],
)
def test_invalid_targets_are_refused(gallery: Gallery, tmp_path: Path, target, message):
    with pytest.raises(GalleryError, match=message):
        gallery.backup(tmp_path / target)


def test_a_damaged_gallery_is_not_backed_up(gallery: Gallery, tmp_path: Path):
    with gallery._store.writing() as connection:  # type: ignore[union-attr]
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE "
            "name = 'picture_track') WHERE name = 'picture_camera'"
        )
    with pytest.raises(GalleryError):
        gallery.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# --- copies by other programs -----------------------------------------------------------


def copied(source: Path, target: Path) -> None:
    """Copy both files of a gallery with another tool."""
    shutil.copy(source, target)
    shutil.copy(vectors_file(source), vectors_file(target))


def test_a_damaged_vector_does_not_replace_an_intact_backup(gallery: Gallery, tmp_path: Path):
    copy = tmp_path / "copy"
    gallery.backup(copy)
    before = copy.read_bytes()
    gallery.close()
    side = tmp_path / "g.vectors"
    data = bytearray(side.read_bytes())
    data[-1] ^= 0x40  # in the last vector
    side.write_bytes(data)
    with (
        Gallery(tmp_path / "g") as damaged,
        pytest.raises(GalleryError, match="picture 3 does not"),
    ):
        damaged.backup(copy, overwrite=True)
    assert copy.read_bytes() == before
    with Gallery(copy) as intact:
        assert intact.check().is_valid


def test_a_file_copy_of_an_open_gallery_has_all_pictures(gallery: Gallery, tmp_path: Path):
    copied(tmp_path / "g", tmp_path / "copy")
    with pytest.warns(GalleryWarning, match=r"copied while it was in use.*holds 3 pictures"):
        copy = Gallery(tmp_path / "copy")
    assert copy.images() == {"a", "b", "c"}
    copy.close()
    assert images(tmp_path / "copy") == {"a", "b", "c"}  # warned once


def test_a_file_copy_without_all_pictures_is_detected(tmp_path: Path):
    """A reader keeps new pictures in the log, which is not copied."""
    path = tmp_path / "g"
    with Gallery(path, dim=DIM) as gallery:
        gallery.add(ONE, ["a"])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM picture").fetchall()
        gallery.add(np.eye(2, DIM), ["b", "c"])
        copied(path, tmp_path / "copy")
        reader.close()
    with pytest.warns(GalleryWarning, match="holds 1 pictures; what was added or deleted last"):
        Gallery(tmp_path / "copy").close()


def test_an_inconsistent_copy_is_refused(gallery: Gallery, tmp_path: Path):
    gallery.add(np.repeat(ONE, 400, axis=0), [f"{i:0100}" for i in range(400)])
    early = (tmp_path / "g").read_bytes()
    gallery.delete(range(50, 300))
    gallery.add(np.repeat(ONE, 100, axis=0), [f"{i:0200}" for i in range(100)])
    late = (tmp_path / "g").read_bytes()
    middle = 3 * 16384
    (tmp_path / "copy").write_bytes(late[:middle] + early[middle:])
    shutil.copy(tmp_path / "g.vectors", tmp_path / "copy.vectors")
    with pytest.raises(GalleryError, match="damaged"):
        Gallery(tmp_path / "copy")


def test_a_closed_gallery_is_two_files_and_copied_as_it_is(gallery: Gallery, tmp_path: Path):
    gallery.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g", "g.vectors"]
    copied(tmp_path / "g", tmp_path / "copy")
    assert images(tmp_path / "copy") == {"a", "b", "c"}


def test_an_open_gallery_is_closed_at_the_end_of_the_process(tmp_path: Path):
    code = (
        "import sys, numpy as np\n"
        "from finegrain.gallery import Gallery\n"
        "gallery = Gallery(sys.argv[1], dim=4)\n"
        "gallery.add(np.eye(1, 4), ['a'])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "g")], check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g", "g.vectors"]
    assert images(tmp_path / "g") == {"a"}


def test_several_handles_leave_two_files(gallery: Gallery, tmp_path: Path):
    with Gallery(tmp_path / "g") as first, Gallery(tmp_path / "g") as second:
        first.add(ONE, ["d"])
        second.add(ONE, ["e"])
        gallery.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g", "g.vectors"]
    assert images(tmp_path / "g") == {"a", "b", "c", "d", "e"}


def test_a_query_does_not_change_the_file(gallery: Gallery, tmp_path: Path):
    gallery.close()
    before = (tmp_path / "g").read_bytes(), os.stat(tmp_path / "g").st_mtime_ns
    with Gallery(tmp_path / "g") as opened:
        opened.search(ONE, 2, where="camera = 'x'")
    assert ((tmp_path / "g").read_bytes(), os.stat(tmp_path / "g").st_mtime_ns) == before


# --- the file itself --------------------------------------------------------------------


def test_files_are_private(gallery: Gallery, tmp_path: Path):
    before = os.umask(0)
    try:
        with Gallery(tmp_path / "h", dim=DIM) as other:
            other.add(ONE, ["a"])
            other.backup(tmp_path / "copy")
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    finally:
        os.umask(before)
    names = ("h", "h-wal", "h-shm", "h.vectors", "copy", "copy.vectors", "g", "g-wal")
    if os.name == "posix":
        assert {modes[n] for n in names} == {0o600}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_removed_or_replaced_file_is_detected(gallery, tmp_path: Path, replaced: bool):
    assert gallery.search(ONE, 1)
    (tmp_path / "g").rename(tmp_path / "moved")
    if replaced:
        (tmp_path / "g").touch()
    for ask in (
        lambda: gallery.add(ONE, ["d"]),
        lambda: gallery.search(ONE, 1),
        lambda: gallery.delete([1]),
        lambda: gallery.rows([1]),
        lambda: gallery.backup(tmp_path / "copy"),
    ):
        with pytest.raises(GalleryError, match="was removed, or replaced by another file"):
            ask()


def test_the_log_of_a_removed_gallery_is_not_used_for_a_new_one(gallery, tmp_path: Path):
    (tmp_path / "g").unlink()
    with pytest.raises(GalleryError, match=r"but the log of one.*g-wal"):
        Gallery(tmp_path / "g", dim=DIM)
    assert not (tmp_path / "g").exists()
