"""A full disk, here a limit on the size of files: a clear error, and nothing is lost."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import moving, vector_file
from tests.unit.gallery.damaging import vectors_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no limit on files")

DIM = 16
COUNT = 100
FORMAT_4 = Path(__file__).parents[2] / "fixtures" / "galleries" / "format4.gallery.gz"


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Let writes behind a position of any file fail."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    monkeypatch.setattr(vector_file, "BLOCK_ROWS", 32)
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(COUNT), [f"{i}.jpg" for i in range(COUNT)])
        gallery.delete([3])
        yield gallery


CHANGES: dict[str, Callable[[Gallery], object]] = {
    "add": lambda gallery: gallery.add(unit(200, 1), [None] * 200),
    "delete": lambda gallery: gallery.delete(range(1, 90)),
    "delete by filter": lambda gallery: gallery.delete_where("id < 90"),
    "update": lambda gallery: gallery.update(range(1, 90), {"a": "x" * 400}),
    "compact": lambda gallery: gallery.compact(),
    "backup": lambda gallery: gallery.backup(Path(gallery.path).with_name("copy")),
}


@pytest.mark.parametrize("num_bytes", [1000, 6000, 20_000])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_on_a_full_disk_loses_nothing(gallery: Gallery, change: str, num_bytes: int):
    path = Path(gallery.path)
    columns = gallery.columns()
    error = None
    with files_limited_to(num_bytes):
        try:
            CHANGES[change](gallery)
        except GalleryError as caught:
            error = caught
        assert len(gallery.search(unit(1, 2), COUNT)[0]) in (COUNT - 1, COUNT + 199, 11)
    if error is None:  # the files are small enough
        assert num_bytes == 20_000
        return
    assert re.search(r"space|ulimit|limit on", str(error))
    assert sorted(file.name for file in path.parent.iterdir() if file.suffix == ".next") == []
    assert not path.with_name("copy").exists()
    assert list(gallery) == [id_ for id_ in range(1, COUNT + 1) if id_ != 3]
    assert gallery.columns() == columns
    assert gallery.check().is_valid
    CHANGES[change](gallery)  # there is space again
    assert gallery.check().is_valid


def test_the_error_of_a_backup_names_the_folder_of_the_copy(gallery: Gallery, tmp_path: Path):
    (tmp_path / "backups").mkdir()
    for num_bytes in (1000, 200_000):
        if num_bytes > 1000:
            gallery.add(unit(2000, 4), [None] * 2000)
        with (
            files_limited_to(num_bytes),
            pytest.raises(GalleryError, match=r"disk of .*backups is full.*Nothing was copied"),
        ):
            gallery.backup(tmp_path / "backups" / "copy")
        assert list((tmp_path / "backups").iterdir()) == []


@pytest.mark.parametrize("num_bytes", [4000, 90_000])
def test_a_migration_on_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
):
    path = tmp_path / "old"
    path.write_bytes(gzip.decompress(FORMAT_4.read_bytes()))
    monkeypatch.setattr(moving, "_CHUNK_ROWS", 5)
    with files_limited_to(num_bytes), pytest.raises(GalleryError, match="Nothing stored is lost"):
        Gallery(path).close()
    with Gallery(path) as gallery:
        assert gallery.check().is_valid
        assert len(gallery._store.vectors(gallery)) == len(gallery) == 13
    assert vectors_file(path).exists()
