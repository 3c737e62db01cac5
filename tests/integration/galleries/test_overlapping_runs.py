"""Overlapping runs over one folder add each picture once, and report what each of them added."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.encoder import Encoded
from finegrain.gallery import Gallery
from finegrain.gallery.milvus.store import MilvusStore
from finegrain.search.ingest import Added, IngestOptions, ingest

NUM_PICTURES = 70


def draw(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        pixels = random.integers(0, 256, (16, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_overlapping_index_runs_add_each_picture_once(plan: Path, tmp_path: Path):
    folder = draw(tmp_path / "crops")
    command = [sys.executable, "-m", "finegrain", "index", str(plan), str(folder)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert sum(int(re.findall(r"in all: added (\d+)", text)[0]) for text in outputs) == 70
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        assert len(gallery) == len(gallery.images()) == NUM_PICTURES
        assert gallery.check().is_valid


def test_crops_and_arrays_of_one_picture_are_not_duplicates(tmp_path: Path):
    addresses = ["a.jpg#xywh=0,0,4,8", "a.jpg#xywh=4,0,4,8", "a.jpg", None, None]
    vectors = np.tile([1.0, 0.0], (5, 1))
    with Gallery(tmp_path / "g", dim=2) as gallery:
        assert gallery.add(vectors, addresses, on_duplicate="skip") == [1, 2, 3, 4, 5]


class SlowEncoder:
    """An encoder that waits for the other run before each batch.

    So both runs decide what to add before one of them adds anything.
    """

    def __init__(self, both: threading.Barrier) -> None:
        self._both = both

    def stream_images(self, sources, *, progress: bool = False) -> Iterator[Encoded]:
        for position in range(len(sources)):
            self._both.wait(60)
            yield Encoded(
                positions=[position], embeddings=np.eye(1, 4, dtype=np.float32), problems=[]
            )


@pytest.fixture(params=["file", "milvus-lite"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gallery]:
    if request.param == "milvus-lite":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("pymilvus")
    path = tmp_path / "g" if request.param == "file" else f"milvus:{tmp_path}/g.db"
    with Gallery(path, dim=4) as opened:
        yield opened


def two_runs(gallery: Gallery, paths: list[str], metadata: list[list[dict]]) -> list[Added]:
    both = threading.Barrier(2)
    options = IngestOptions.of("table", True, False, None, False, False)

    def run(columns: list[dict]) -> Added:
        return ingest(SlowEncoder(both), gallery, map(Path, paths), columns, options)  # type: ignore

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, metadata))


def test_each_run_reports_its_own_additions(gallery: Gallery, tmp_path: Path):
    paths = [str(tmp_path / f"{number}.jpg") for number in range(8)]
    results = two_runs(gallery, paths, [[{}] * 8] * 2)
    assert len(gallery) == len(gallery.images()) == 8
    assert sum(done.num_new for done in results) == 8
    for done in results:
        assert done.num_new + done.num_overtaken == done.num_given == len(done.ids) == 8
        if done.num_overtaken:
            assert f"skipped {done.num_overtaken} that another run added meanwhile" in str(done)


def test_products_of_two_tables_with_a_common_picture_are_all_added(gallery: Gallery, tmp_path):
    paths = [str(tmp_path / "a.jpg")] * 2
    tables = [[{"pid": "R1"}, {"pid": "R2"}], [{"pid": "R2"}, {"pid": 3}]]
    results = two_runs(gallery, paths, tables)
    assert sorted(str(row.pid) for row in gallery.rows(gallery)) == ["3", "R1", "R2"]
    assert sum(done.num_new for done in results) == 3


def test_runs_may_write_to_milvus_at_the_same_time(tmp_path: Path, monkeypatch):
    """Both read before one writes, and both write before one reads again."""
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    both = threading.Barrier(2)
    insert_all = MilvusStore.insert_all

    def insert_together(self, batches):
        both.wait(60)
        ids = insert_all(self, batches)
        both.wait(60)
        return ids

    monkeypatch.setattr(MilvusStore, "insert_all", insert_together)
    with Gallery(f"milvus:{tmp_path}/g.db", dim=4) as gallery:
        results = two_runs(gallery, [str(tmp_path / f"{n}.jpg") for n in range(3)], [[{}] * 3] * 2)
        assert len(gallery) == len(gallery.images()) == 3
        assert sum(done.num_new for done in results) == 3
        assert {*results[0].ids} == {*results[1].ids} == {*gallery}
