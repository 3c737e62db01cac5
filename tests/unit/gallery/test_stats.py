"""Numbers about a gallery's files and memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.gallery import Gallery, RaBitQ
from finegrain.gallery.sqlite import vector_file
from finegrain.gallery.sqlite.files import vectors_of
from finegrain.index import codes, exact
from finegrain.index.approximate import index as approximate
from tests.unit.gallery.test_backends import LiteralBackend

DIM, BLOCK, COUNT = 16, 32, 100


def unit(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(exact, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(codes, "least_rows", lambda: 8)
    monkeypatch.setattr(codes, "multiplies_bytes", lambda: False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        metadata = [{"price": number} for number in range(COUNT)]
        gallery.add(unit(COUNT), [None] * COUNT, metadata=metadata)
    return tmp_path / "g"


def test_a_gallery_states_its_rows_and_files(path: Path):
    with Gallery(path) as gallery:
        gallery.delete([1, 2, 40])
        stats = gallery.stats()
        assert stats.num_pictures == COUNT - 3
        assert (stats.num_blocks, stats.num_slots, stats.num_unused_slots) == (3, COUNT, 3)
        assert stats.columns == gallery.columns()
        assert stats.disk["g"] == path.stat().st_size
        assert stats.disk["g.vectors"] == vectors_of(path).stat().st_size
        assert stats.num_unerased == 0
        gallery.compact()
        assert gallery.stats().num_unused_slots == 0
        assert gallery.stats().disk["g.vectors"] < stats.disk["g.vectors"]


def test_unused_pages_are_counted_until_they_are_removed(path: Path):
    with Gallery(path) as gallery:
        gallery.add(unit(40), [f"{'long' * 500}{n}.jpg" for n in range(40)])
        before = path.stat().st_size
        gallery.delete(range(COUNT + 1, COUNT + 41))
        unused = gallery.stats().unused_page_bytes
        assert unused > 0
        gallery.compact()
        assert gallery.stats().unused_page_bytes == 0
        assert path.stat().st_size <= before - unused


def test_memory_is_counted_by_part(path: Path):
    with Gallery(path) as gallery, Gallery(path, memory="vectors") as held:
        assert gallery.stats().memory == {}
        for one in (gallery, held):
            one.search(unit(1), 1, where="price >= 10 and price < 99 and not price = 12")
        in_file, in_memory = gallery.stats(), held.stats()
        assert in_file.memory["vectors"] == 4 * DIM * (COUNT - 3 * BLOCK)
        assert in_memory.memory["vectors"] == 4 * DIM * COUNT
        assert in_file.memory["ids"] == in_memory.memory["ids"] == 8 * COUNT
        assert in_file.memory["codes"] == 64 * 3 * BLOCK  # FAISS pads to a width of 64
        assert in_file.memory["places"] == 12 * 3 * BLOCK
        assert (in_file.index, in_memory.index) == (
            "exact, with codes in memory",
            "exact, with vectors in memory",
        )


def test_the_columns_of_filters_are_counted(path: Path):
    with Gallery(path) as gallery:
        gallery._store._columns._quick_steps = 1
        gallery.search(unit(1), 1, where="price < 50")
        assert gallery.stats().memory["columns"] == 16 * COUNT  # an id and a number


def test_an_approximate_index_states_its_kind_and_memory(path: Path, monkeypatch):
    monkeypatch.setattr(approximate, "TAIL_ROWS", 64)
    with Gallery(path, index=RaBitQ(bits=1)) as gallery:
        gallery.search(unit(1), 1)
        stats = gallery.stats()
    assert stats.index == "RaBitQ(candidates=32, bits=1)"
    assert stats.memory["codes"] > COUNT * DIM // 8


def test_an_index_that_does_not_tell_its_memory_has_none(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=6, index=LiteralBackend()) as gallery:
        gallery.add(np.eye(6), [None] * 6)
        gallery.search(np.eye(6)[:1], 1)
        assert gallery.stats().memory == {}


def test_the_command_line_prints_stats(path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["gallery", "stats", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    with Gallery(path) as gallery:
        assert shown == gallery.stats().to_dict()
    assert main(["gallery", "stats", str(path), "--load"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path}: 100 pictures, vectors of width 16\n")
    assert "3 full blocks; 100 places in use, 0 of them of deleted pictures" in text
    assert "vectors 0.2 KiB" in text
    assert main(["gallery", "stats", str(path.with_name("none"))]) == 1
