"""The cost of a gallery's files: filling, opening with a first query, adding, deleting, memory.

The peer is a flat FAISS index in a file with the same vectors and the same first hit. It is read at
the start, and written and flushed after each change. Its deletion also removes vectors from the
file, because the whole file is written again. Each is measured in a separate process with a warm
cache of files. ``FINEGRAIN_ROWS`` sets the number of rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from finegrain.gallery import Gallery
from finegrain.index.codes import multiplies_bytes

WIDTH, K = 512, 10
CHUNK = 20_000
NUM_ADDED, NUM_DELETED = 11, 100
ROWS = int(os.environ.get("FINEGRAIN_ROWS", 1_000_000))
SHORT_ROWS = 100_000

Vectors = NDArray[np.float32]


def test_storage(tmp_path: Path, short: bool, record: Callable[..., None]) -> None:
    rows = min(ROWS, SHORT_ROWS) if short else ROWS
    results = {}
    for name in STORES:
        command = [sys.executable, __file__, name, str(tmp_path / name), str(rows)]
        for step in ("fill", "use"):
            done = subprocess.run([*command, step], capture_output=True, text=True, check=True)
            results[name] = results.get(name, {}) | json.loads(done.stdout.splitlines()[-1])
    assert results["finegrain"].pop("answer") == results["faiss flat"].pop("answer")
    record(
        "gallery_storage",
        {
            "rows": rows,
            "width": WIDTH,
            "codes": "bytes" if multiplies_bytes() else "faiss",
            "load_average_before": round(os.getloadavg()[0], 1),
            "stores": results,
        },
    )
    assert results["finegrain"]["delete_s"] < results["faiss flat"]["delete_s"]


class GalleryStore:
    """A gallery, whose changes are durable when a call returns."""

    def __init__(self, path: Path) -> None:
        self._gallery = Gallery(path, dim=WIDTH)

    def add(self, vectors: Vectors) -> None:
        self._gallery.add(vectors, [f"crops/{row:08d}.jpg" for row in range(len(vectors))])

    def best(self, query: Vectors) -> list[int]:
        return [hit.id for hit in self._gallery.search(query, K)[0]]

    def delete(self, ids: list[int]) -> None:
        self._gallery.delete(ids)

    def save(self) -> None:
        """All changes are already written."""


class FlatStore:
    """A flat FAISS index with ids, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = (
            faiss.read_index(str(path))
            if path.exists()
            else faiss.IndexIDMap2(faiss.IndexFlatIP(WIDTH))
        )

    def add(self, vectors: Vectors) -> None:
        first = self._index.ntotal + 1
        self._index.add_with_ids(vectors, np.arange(first, first + len(vectors)))

    def best(self, query: Vectors) -> list[int]:
        return self._index.search(query, K)[1][0].tolist()  # type: ignore[no-any-return]

    def delete(self, ids: list[int]) -> None:
        self._index.remove_ids(np.array(ids))

    def save(self) -> None:
        faiss.write_index(self._index, str(self._path))
        with self._path.open("r+b") as file:
            os.fsync(file.fileno())


STORES = {"finegrain": GalleryStore, "faiss flat": FlatStore}


def drawn(count: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 4)


def private_bytes() -> int:
    """Memory of this process, without the cache of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def fill(store: GalleryStore | FlatStore, path: Path, rows: int) -> dict[str, Any]:
    taken = 0.0
    for start in range(0, rows, CHUNK):
        vectors = drawn(min(CHUNK, rows - start), start)
        taken += seconds(lambda vectors=vectors: store.add(vectors))  # type: ignore[misc]
    taken += seconds(store.save)
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    return {"fill_s": round(taken, 2), "file_bytes_a_row": round(size / rows)}


def use(kind: type[GalleryStore | FlatStore], path: Path, rows: int) -> dict[str, Any]:
    multiplies_bytes()  # imports ONNX Runtime
    query = drawn(1, seed=7)
    before = private_bytes()
    start = time.perf_counter()
    store = kind(path)
    answer = store.best(query)
    opened = time.perf_counter() - start
    held = private_bytes() - before
    added = []
    for number in range(NUM_ADDED):
        vectors = drawn(1, seed=number)
        added.append(seconds(lambda vectors=vectors: (store.add(vectors), store.save())))  # type: ignore[misc]
    ids = np.random.default_rng(3).choice(rows, NUM_DELETED, replace=False) + 1
    return {
        "open_s": round(opened, 3),
        "memory_bytes_a_row": round(held / rows),
        "add_one_s": median(added),
        "delete_s": seconds(lambda: (store.delete(ids.tolist()), store.save())),
        "answer": answer,
    }


if __name__ == "__main__":
    name, place, count, step = sys.argv[1:]
    if step == "fill":
        print(json.dumps(fill(STORES[name](Path(place)), Path(place), int(count))))
    else:
        print(json.dumps(use(STORES[name], Path(place), int(count))))
