from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.bounded import parquet as parquet_bounds
from finegrain.errors import DataError, GalleryError, ImageError, MissingExtraError, PlanError
from finegrain.gallery import Gallery
from finegrain.plan import Plan
from finegrain.preprocess import Crop
from finegrain.search import bulk
from finegrain.search.bulk import Shard, _claim, _shards, embed_dataset, embed_shard
from finegrain.search.searcher import Searcher

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def pictures(crops: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    shutil.copytree(crops, folder)
    (folder / "05_broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def catalog(pictures: Path) -> Path:
    """Parquet of two row groups; one picture is missing."""
    names = [f"{number:02d}.jpg" for number in range(12)] + ["gone.jpg"]
    table = arrow.table(
        {
            "file": [*names[:11], str(pictures / names[11]), names[12]],
            "pid": range(13),
            "camera": ["gate-3"] * 13,
            "price": [number / 2 for number in range(13)],
        }
    )
    path = pictures / "catalog.parquet"
    parquet.write_table(table, path, row_group_size=7)
    return path


def encode_all(searcher: Searcher, plan: Path, shards: list[Shard], out: Path) -> int:
    _claim(out, Plan(plan), shards)
    done = [embed_shard(searcher._encoder, shard, out) for shard in shards]
    return sum(one.num_problems for one in done)


def loaded(plan: Path, out: Path, path: Path) -> Gallery:
    manifest = Plan(plan).manifest
    gallery = Gallery(path, fingerprint=manifest.fingerprint, dim=manifest.embed_dim)
    gallery.load(out)
    return gallery


def by_image(gallery: Gallery) -> dict[str, np.ndarray]:
    vectors = gallery._store.vectors(gallery)
    return {str(row.image): vectors[row.id] for row in gallery.rows(gallery)}


@pytest.mark.parametrize("rows_per_shard", [1, 5, 100])
def test_a_folder_gives_the_same_rows_as_add(searcher, plan, pictures, tmp_path, rows_per_shard):
    shards = list(_shards(pictures, "image_path", rows_per_shard))
    assert sum(shard.num_rows for shard in shards) == 13
    assert encode_all(searcher, plan, shards, tmp_path / "out") == 1
    gallery = loaded(plan, tmp_path / "out", tmp_path / "other.gallery")
    searcher.add(pictures, progress=False)
    ours, added = by_image(gallery), by_image(searcher.gallery)
    assert list(ours) == list(added)
    assert np.allclose(np.stack(list(ours.values())), np.stack(list(added.values())), atol=1e-6)
    assert {tuple(row.metadata) for row in gallery.rows(gallery)} == {()}
    problems = [
        row
        for file in (tmp_path / "out" / "problems").iterdir()
        for row in parquet.read_table(file).to_pylist()
    ]
    assert [Path(row["where"]).name for row in problems] == ["05_broken.jpg"]
    assert "not a picture" in problems[0]["why"]


def test_columns_of_parquet_are_kept(searcher, plan, pictures, catalog, tmp_path):
    shards = list(_shards(catalog, "file", 5))
    assert [(s.row_group, s.first, s.num_rows) for s in shards] == [
        (0, 0, 5), (0, 5, 2), (1, 0, 5), (1, 5, 1)
    ]  # fmt: skip
    assert encode_all(searcher, plan, shards, tmp_path / "out") == 1
    gallery = loaded(plan, tmp_path / "out", tmp_path / "other.gallery")
    rows = gallery.rows(gallery)
    assert [row.image for row in rows] == [
        str(pictures.resolve() / f"{number:02d}.jpg") for number in range(12)
    ]
    assert [row.pid for row in rows] == list(range(12))
    assert rows[3].camera == "gate-3"
    assert rows[3].metadata == {"price": 1.5}


def test_the_rows_of_a_shard_are_read_in_batches(catalog, monkeypatch):
    """Also those that begin inside a batch, from a row group with vectors."""
    table = parquet.read_table(catalog).append_column("vector", arrow.array([[0.5]] * 13))
    parquet.write_table(table, catalog, row_group_size=13)
    expected = [row["pid"] for row in table.to_pylist()]
    for batch_rows in (1, 3, 13):
        monkeypatch.setattr(bulk, "rows_at_once", lambda *_, rows=batch_rows: rows)
        for rows_per_shard in (4, 7, 13):
            tables = [shard.table() for shard in _shards(catalog, "file", rows_per_shard)]
            assert [n for rows in tables for n in rows.column("pid").to_pylist()] == expected
            assert "vector" not in tables[0].column_names


def test_large_rows_are_refused_before_they_fill_the_memory(catalog, monkeypatch):
    (shard,) = (shard for shard in _shards(catalog, "file", 7) if shard.row_group == 0)
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "MAX_BATCH_BYTES", 200)
        with pytest.raises(DataError, match="take more than 200 bytes; give fewer rows_per_shard"):
            shard.table()
    monkeypatch.setattr(parquet_bounds, "ALWAYS_READ", 100)
    monkeypatch.setattr(parquet_bounds, "MAX_RATIO", 0)
    for read in (shard.table, lambda: list(_shards(catalog, "file", 7))):
        with pytest.raises(DataError, match="bytes after unpacking for its size"):
            read()


def test_a_shard_of_a_shorter_file_is_refused(catalog):
    *_, last = _shards(catalog, "file", 5)
    parquet.write_table(parquet.read_table(catalog).slice(0, 10), catalog, row_group_size=7)
    with pytest.raises(DataError, match="expected 1 rows, got 0"):
        last.table()


def test_a_shard_lists_each_picture_once(pictures):
    part = Crop(pictures / "00.jpg", (0, 0, 8, 8))
    (shard,) = _shards([pictures / "00.jpg", part, str(pictures / "00.jpg"), part], "image_path", 9)
    assert shard.paths == (str(pictures.resolve() / "00.jpg"), part.address)
    assert Shard(**json.loads(json.dumps({"number": 0, "num_rows": 1, "paths": ["a"]}))).table()


def test_a_folder_of_results_belongs_to_one_source_and_division(plan, pictures, tmp_path):
    first, other = (list(_shards(pictures, "image_path", n)) for n in (5, 6))
    _claim(tmp_path / "out", Plan(plan), first)
    _claim(tmp_path / "out", Plan(plan), first)
    with pytest.raises(DataError, match="another source, plan or shard size"):
        _claim(tmp_path / "out", Plan(plan), other)
    with pytest.raises(DataError, match="holds other files"):
        _claim(pictures, Plan(plan), first)
    with pytest.raises(DataError, match="cannot be written"):
        _claim(pictures / "00.jpg", Plan(plan), first)
    (tmp_path / "out" / "bulk.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        _claim(tmp_path / "out", Plan(plan), first)


def test_a_searcher_loads_the_results(searcher, plan, pictures, tmp_path):
    encode_all(searcher, plan, list(_shards(pictures, "image_path", 50)), tmp_path / "out")
    assert len(searcher.load(tmp_path / "out")) == 12
    assert len(searcher.query("coat", k=3)) == 3


def test_results_of_another_plan_do_not_load(searcher, plan, pictures, tmp_path):
    encode_all(searcher, plan, list(_shards(pictures, "image_path", 50)), tmp_path / "out")
    with (
        Gallery(tmp_path / "g", fingerprint="other", dim=searcher.manifest.embed_dim) as gallery,
        pytest.raises(GalleryError, match="they do not compare"),
    ):
        gallery.load(tmp_path / "out")


def test_invalid_sources_are_refused(plan, pictures, catalog, tmp_path):
    with pytest.raises(DataError, match="no column 'image_path'; it has file, pid"):
        list(_shards(catalog, "image_path", 5))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(_shards(tmp_path / "gone.parquet", "file", 5))
    with pytest.raises(ImageError, match="no picture or folder"):
        list(_shards(tmp_path / "gone", "file", 5))
    numbers = list(_shards(catalog, "pid", 5))
    with pytest.raises(DataError, match="column 'pid' cannot be read"):
        numbers[0].table()
    catalog.unlink()
    with pytest.raises(DataError, match="has changed since"):
        numbers[0].table()


def test_arguments_are_checked_before_ray_starts(plan, pictures, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with pytest.raises(DataError, match="of 1 or more"):
        embed_dataset(plan, pictures, tmp_path / "out", concurrency=0)
    with pytest.raises(PlanError):
        embed_dataset(pictures / "00.jpg", pictures, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[ray\]"):
        embed_dataset(plan, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
