"""A gallery loses no acknowledged change after a kill or on a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery import Gallery

DIM = 16

# Vectors are a function of the name, so each row can be checked on its own.
_COMMON = """
import json, resource, sys
import numpy as np
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite import vector_file

vector_file.BLOCK_ROWS = 64

def vector(name):
    v = np.random.default_rng(name).standard_normal(16).astype(np.float32)
    return v / np.linalg.norm(v)

def add(gallery, first, count):
    names = range(first, first + count)
    ids = gallery.add(
        np.stack([vector(n) for n in names]), [str(n) for n in names],
        pids=names, tracks=[str(n) for n in names], metadata=[{"name": n} for n in names],
    )
    return dict(zip(ids, names))

def say(**what):
    print(json.dumps(what), flush=True)
"""

_WRITER = (
    _COMMON
    + """
random = np.random.default_rng(int(sys.argv[2]))
with Gallery(sys.argv[1], dim=16) as gallery:
    say(ready=True)
    alive, name = list(gallery), int(sys.argv[2]) * 1_000_000
    while True:
        if random.random() < 0.15 and len(alive) > 20:
            gone = [int(i) for i in random.choice(alive, 5, replace=False)]
            say(deleting=gone)
            gallery.delete(gone)
            say(deleted=gone)
            alive = [i for i in alive if i not in gone]
        else:
            count = int(random.integers(1, 40))
            added = add(gallery, name, count)
            say(added=added)
            alive += added
            name += count
"""
)

_FILLER = (
    _COMMON
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with Gallery(sys.argv[1], dim=16) as gallery:
    name = 0
    try:
        while True:
            say(added=add(gallery, name, 50))
            name += 50
    except GalleryError as error:
        say(error=str(error))
    say(found=sorted(hit.id for hit in gallery.search(vector(0)[None], 10**6)[0]))
"""
)


def vector(name: int) -> np.ndarray:
    result = np.random.default_rng(name).standard_normal(DIM).astype(np.float32)
    return result / np.linalg.norm(result)


class Truth:
    """The changes that the writers have acknowledged, over all their lives."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}  # name by id
        self.names: dict[int, int] = {}  # of all rows, also deleted ones
        self.deleted: set[int] = set()
        self.doubtful: set[int] = set()  # asked to delete, without an acknowledgement

    def hear(self, lines: list[str]) -> None:
        deleting: list[int] = []
        for line in lines:
            said = json.loads(line)
            deleting = said.get("deleting", [])
            added = {int(id_): name for id_, name in said.get("added", {}).items()}
            self.alive |= added
            self.names |= added
            self.deleted |= set(said.get("deleted", []))
        self.doubtful |= set(deleting)

    def check(self, path: Path) -> None:
        with Gallery(path, create=False) as gallery:
            stored = set(gallery)
            rows = {row.id: row for row in gallery.rows(stored)}
            vectors = gallery._store.vectors(stored)
            assert set(rows) == set(vectors) == stored
            assert {h.id for h in gallery.search(vector(0)[None], 10**6)[0]} == stored
            assert gallery.check().is_valid
            files = [file.read_bytes() for file in path.parent.iterdir()]
            gone = (self.deleted | self.doubtful) - stored
            erased = [vector(self.names[id_]).tobytes() for id_ in gone & self.names.keys()]
            assert not any(data in file for file in files for data in erased)
            assert self.alive.keys() - self.deleted - self.doubtful <= stored
            assert not self.deleted & stored
            lost = self.doubtful - stored
            assert not lost or self.doubtful <= lost | self.deleted  # five or none of them
            for id_, row in rows.items():
                name = row.pid
                assert name is not None
                assert (row.image, row.track, row.metadata) == (
                    str(name),
                    str(name),
                    {"name": name},
                )
                assert vectors[id_].tobytes() == vector(name).tobytes()
                assert self.alive.get(id_, name) == name
            # A batch is acknowledged after it is durable, so the last batch may be stored
            # unacknowledged.
            unsaid = sorted(row.pid or 0 for id_, row in rows.items() if id_ not in self.alive)
            assert unsaid == list(range(unsaid[0], unsaid[0] + len(unsaid))) if unsaid else True
            self.alive = {id_: row.pid or 0 for id_, row in rows.items()}
            self.doubtful = set()
            with gallery._store.reading() as run:  # type: ignore[union-attr]
                assert list(run("PRAGMA integrity_check")) == [("ok",)]


def torture(path: Path, kills: int, longest: float) -> int:
    """Kill writers at random; returns the number of acknowledged rows."""
    random = np.random.default_rng(kills)
    truth = Truth()
    acknowledged = 0
    for life in range(1, kills + 1):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(life)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert json.loads(writer.stdout.readline()) == {"ready": True}
        try:
            writer.wait(timeout=float(random.uniform(0, longest)))
        except subprocess.TimeoutExpired:
            writer.kill()
        said, _ = writer.communicate()
        assert writer.returncode == -9, said
        lines = [line for line in said.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged += sum(len(json.loads(line).get("added", ())) for line in lines)
        truth.hear(lines)
        truth.check(path)
    return acknowledged


def test_ten_kills_lose_nothing(tmp_path: Path):
    assert torture(tmp_path / "g", kills=10, longest=0.4) > 100


@pytest.mark.torture
def test_two_hundred_kills_lose_nothing(tmp_path: Path):
    acknowledged = torture(tmp_path / "g", kills=200, longest=0.5)
    print(f"200 kills, {acknowledged} rows acknowledged, none lost")


def _filled(path: Path, limit: int) -> Iterator[dict]:
    filler = subprocess.run(
        [sys.executable, "-c", _FILLER, str(path), str(limit)], capture_output=True, text=True
    )
    assert filler.returncode == 0, filler.stderr
    return map(json.loads, filler.stdout.splitlines())


@pytest.mark.parametrize("limit", [500_000, 1_000_000, 3_000_000])
def test_a_full_disk_loses_nothing_and_gives_advice(tmp_path: Path, limit: int):
    path = tmp_path / "g"
    *batches, error, result = _filled(path, limit)
    assert "Nothing stored is lost" in error["error"]
    assert "space" in error["error"]
    truth = Truth()
    truth.hear([json.dumps(said) for said in batches])
    assert result["found"] == sorted(truth.alive)
    truth.check(path)
    with Gallery(path) as gallery:  # with free space again, adding continues
        before = len(gallery)
        gallery.add(vector(5)[None], ["5"])
        assert len(gallery) == before + 1
