"""Codes that are packed in the background, after the first search."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import vector_file
from finegrain.gallery.sqlite.files import vectors_of
from finegrain.gallery.sqlite.vector_file import VectorFile
from finegrain.index import codes
from finegrain.index.exact import VectorIndex
from finegrain.index.late_codes import LateCodes
from finegrain.runtime.byte_matrix import copies_weights

DIM, BLOCK, COUNT = 64, 32, 200

pytestmark = pytest.mark.skipif(
    not copies_weights(), reason="ONNX Runtime does not copy weights on this processor"
)


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vector_file, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(codes, "least_rows", lambda: 8)
    monkeypatch.setattr(codes, "multiplies_bytes", lambda: True)
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(COUNT), [None] * COUNT)
    return tmp_path / "g"


def index_of(gallery: Gallery) -> VectorIndex:
    index = gallery._store._follower._index  # type: ignore[union-attr]
    assert isinstance(index, VectorIndex)
    return index


def late_codes(gallery: Gallery) -> list[LateCodes]:
    blocks = index_of(gallery)._blocks
    return [block.codes for block in blocks if isinstance(block.codes, LateCodes)]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def search(gallery: Gallery) -> list[int]:
    return [hit.id for hit in gallery.search(unit(1, seed=1), 9)[0]]


def test_codes_are_packed_from_the_second_search_on(path: Path):
    best = np.argsort(-unit(COUNT) @ unit(1, seed=1)[0])[:9] + 1
    with Gallery(path) as gallery:
        assert search(gallery) == best.tolist()
        assert [late.is_packed for late in late_codes(gallery)] == [False] * (COUNT // BLOCK)
        assert search(gallery) == best.tolist()
        wait_for(lambda: all(late.is_packed for late in late_codes(gallery)))
        assert search(gallery) == best.tolist()
        assert len(late_codes(gallery)) == COUNT // BLOCK


def test_the_first_search_keeps_no_codes_in_memory(path: Path):
    with Gallery(path) as gallery:
        search(gallery)
        unpacked = index_of(gallery).memory()["codes"]
        search(gallery)
        wait_for(lambda: all(late.is_packed for late in late_codes(gallery)))
        assert unpacked < index_of(gallery).memory()["codes"] / 2


@pytest.mark.parametrize("name", ["levels", "grid"])
def test_codes_that_are_damaged_later_are_made_again(path: Path, name: str):
    best = np.argsort(-unit(COUNT) @ unit(1, seed=1)[0])[:9] + 1
    with Gallery(path) as gallery:
        assert search(gallery) == best.tolist()
        file = VectorFile(vectors_of(path), writable=True)
        for block in range(COUNT // BLOCK):
            file._write(block, name, 0, 1 - file._read(block, name))
        assert search(gallery) == best.tolist()
        wait_for(lambda: all(late.is_packed for late in late_codes(gallery)))
        assert search(gallery) == best.tolist()
        assert gallery.damaged() == frozenset()


def test_a_deletion_before_and_after_packing_is_followed(path: Path):
    with Gallery(path) as gallery:
        for packed in (False, True):
            before = search(gallery)
            if packed:
                wait_for(lambda: all(late.is_packed for late in late_codes(gallery)))
            gallery.delete(before[:2])
            assert search(gallery)[:7] == before[2:]


def test_closing_stops_packing(path: Path, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = threading.Event(), threading.Event()
    packed: list[LateCodes] = []

    def pack(late: LateCodes) -> None:
        packed.append(late)
        begun.set()
        go_on.wait()

    monkeypatch.setattr(LateCodes, "pack", pack)
    with Gallery(path) as gallery:
        search(gallery)
        search(gallery)
        assert begun.wait(60)
        thread = index_of(gallery)._packing._thread
        threading.Timer(0.05, go_on.set).start()
    assert thread is not None
    assert not thread.is_alive()
    assert len(packed) == 1


def test_an_index_that_is_dropped_stops_packing(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LateCodes, "pack", lambda late: time.sleep(0.001))  # never packed
    gallery = Gallery(path)
    search(gallery)
    search(gallery)
    thread = index_of(gallery)._packing._thread
    assert thread is not None
    del gallery
    gc.collect()
    wait_for(lambda: not thread.is_alive())
