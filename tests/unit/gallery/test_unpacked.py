"""Pictures unpacked from an archive are listed, and deleted with their rows."""

from __future__ import annotations

import io
import tarfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain import times
from finegrain.cli.parser import main
from finegrain.gallery import Gallery
from finegrain.gallery.picture_files import UnpackedFolder, discard_unpacked


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(path: Path, seeds: range) -> None:
    with tarfile.open(path, "w") as archive:
        for seed in seeds:
            for name, data in ((f"{seed}.jpg", jpeg(seed)), (f"{seed}.txt", b"red coat")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def bytes_below(folder: Path) -> bytes:
    """The bytes of all files of a folder, except the archives."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tar")
    return b"".join(path.read_bytes() for path in files)


def left(folder: Path, seeds: range) -> set[int]:
    data = bytes_below(folder)
    return {seed for seed in seeds if jpeg(seed) in data}


@pytest.fixture
def shard(plan: Path) -> Path:
    path = plan.with_name("s.tar")
    write_tar(path, range(4))
    return path


def index(shard: Path, *words: str) -> int:
    return main(["index", str(shard.with_name("model.plan")), str(shard), *words])


def gallery_of(shard: Path) -> Gallery:
    return Gallery(shard.with_name("model.gallery"))


def test_unpacked_pictures_are_listed(shard: Path, capsys):
    assert index(shard) == 0
    folder = shard.with_name("s.tar.pictures")
    size = sum(len(jpeg(seed)) for seed in range(4))
    with gallery_of(shard) as gallery:
        assert gallery.unpacked() == [
            UnpackedFolder(path=folder.resolve(), num_files=4, num_bytes=size, num_unused=0)
        ]
    assert f"{folder}: 4 files, {size / 1e6:.1f} MB" in capsys.readouterr().out
    assert main(["doctor", str(shard.with_name("model.gallery"))]) == 0
    assert f"{folder}: 4 files" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["delete", "delete_where", "sync", "expire", "tidy"])
def test_unpacked_pictures_are_deleted_with_their_rows(shard: Path, how: str, monkeypatch):
    if how in ("expire", "tidy"):
        assert index(shard, "--expire-days", "1") == 0
    else:
        assert index(shard) == 0
    assert left(shard.parent, range(4)) == {0, 1, 2, 3}
    kept: set[int] = set()
    if how == "sync":
        write_tar(shard, range(2, 4))
        assert index(shard, "--sync", "--allow-removing", "all") == 0
        kept = {2, 3}
    elif how in ("expire", "tidy"):
        later = times.now() + timedelta(days=1.5)
        monkeypatch.setattr("finegrain.times.now", lambda: later)
        with gallery_of(shard) as gallery:  # opening deletes it
            if how == "expire":
                gallery.expire()
    else:
        with gallery_of(shard) as gallery:
            gallery.delete_where("id >= 1") if how == "delete_where" else gallery.delete(gallery)
    assert left(shard.parent, range(4)) == kept
    assert shard.with_name("s.tar.pictures").exists() == bool(kept)


def test_a_file_that_another_picture_uses_is_kept(shard: Path):
    assert index(shard) == 0
    with gallery_of(shard) as gallery:
        first, second = gallery.rows(gallery)[:2]
        vector = np.eye(1, gallery.dim)
        (twin,) = gallery.add(vector, [first.image], pids=["other product"])
        (crop,) = gallery.add(vector, [f"{second.image}#xywh=0,0,4,4"])
        gallery.delete([first.id, second.id])
        assert Path(first.image).exists()
        assert Path(second.image).exists()
        gallery.delete([twin, crop])
        assert not Path(first.image).exists()
        assert not Path(second.image).exists()


def test_the_file_of_a_picture_that_was_left_out_is_deleted(shard: Path):
    assert index(shard, "--metadata", "time=2020-01-01", "--expire-days", "1") == 1
    assert left(shard.parent, range(4)) == set()


def test_a_users_own_file_is_kept(tmp_path: Path):
    folder = tmp_path / "own.pictures"
    folder.mkdir()
    own = [folder / f"{'0' * 32}.jpg", folder / "a.jpg", tmp_path / f"{'1' * 32}.jpg"]
    for path in own:
        path.write_bytes(jpeg(0))
    discard_unpacked(map(str, own), lambda path: False)
    assert all(path.exists() for path in own)
    with Gallery(tmp_path / "g", dim=2) as gallery:
        gallery.add(np.tile([1.0, 0], (3, 1)), [str(path) for path in own])
        gallery.delete(gallery)
    assert all(path.exists() for path in own)


def test_unpacked_pictures_are_deleted_with_rows_on_milvus(tmp_path: Path):
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    from finegrain.data.catalog import read_any_catalog

    write_tar(tmp_path / "s.tar", range(3))
    samples = read_any_catalog(tmp_path / "s.tar")["all"].samples
    with Gallery(f"milvus:{tmp_path}/g.db", dim=2) as gallery:
        first, *others = gallery.add(np.tile([1.0, 0], (3, 1)), [str(s.image) for s in samples])
        (crop,) = gallery.add([[1.0, 0]], [f"{samples[0].image}#xywh=0,0,4,4"])
        gallery.delete([first, *others])
        assert [sample.image.exists() for sample in samples] == [True, False, False]
        gallery.delete([crop])
    assert not samples[0].image.exists()


def test_a_dry_run_reports_where_it_has_unpacked(shard: Path, capsys):
    assert index(shard, "--dry-run") in (0, 1)
    shown = capsys.readouterr()
    assert "would have added 4" in shown.out
    assert f"note: a dry run unpacks pictures, too: they are in {shard}.pictures" in shown.err
    assert left(shard.parent, range(4)) == set(range(4))
    assert index(shard) == 0
    assert "dry run" not in capsys.readouterr().err


def test_a_picture_that_is_replaced_keeps_its_file(shard: Path):
    """The new row has the same path; its file must not go with the old row."""
    assert index(shard) == 0
    with gallery_of(shard) as gallery:
        image = next(place.image for place in gallery.places())
        vector = np.eye(1, gallery.dim, dtype=np.float32)
        gallery.add(vector, images=[image], on_duplicate="replace")
        assert len(gallery) == 4
    assert Path(image).is_file()
    assert left(shard.parent, range(4)) == set(range(4))
