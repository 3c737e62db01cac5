from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from filelock import FileLock

from finegrain.errors import PlanError
from finegrain.runtime.tensorrt.cache import EngineCache, EngineKey
from finegrain.runtime.tensorrt.eviction import evict

KEY = EngineKey(
    graph="0" * 64,
    backend="tensorrt",
    version="11.4.0",
    gpu="NVIDIA L4 sm_89",
    driver="13.2",
    precision="fp16",
    buckets="[]",
)
SIZE = 10_000
DAY = 86_400


def key(number):
    return replace(KEY, graph=f"{number:064x}")


def never():
    raise AssertionError("built again")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with room for two engines and their descriptions."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return EngineCache(tmp_path / "engines", max_bytes=2 * SIZE + 3_000)


def put(cache, number, *, days_ago=0.0):
    cache.get_or_build(key(number), lambda: bytes(SIZE))
    age(cache, key(number).digest, days_ago)


def age(cache, stem, days_ago):
    then = time.time() - days_ago * DAY
    for path in cache.folder.glob(f"{stem}.*"):
        os.utime(path, (then, then))


def kept(cache):
    return {n for n in range(9) if (cache.folder / f"{key(n).digest}.engine").exists()}


def test_the_least_recently_used_engine_is_evicted_first(cache):
    for number, days in ((0, 3), (1, 2), (2, 0)):
        put(cache, number, days_ago=days)
    assert kept(cache) == {1, 2}


def test_a_cache_hit_counts_as_use(cache):
    put(cache, 0, days_ago=3)
    put(cache, 1, days_ago=2)
    cache.get_or_build(key(0), never)
    put(cache, 2)
    assert kept(cache) == {0, 2}


def test_nothing_is_evicted_within_the_size(cache):
    put(cache, 0, days_ago=300)
    put(cache, 1, days_ago=200)
    assert kept(cache) == {0, 1}


def test_engines_of_the_last_hour_are_kept(cache):
    """Otherwise engines of one plan could evict each other in turns."""
    for number in range(4):
        put(cache, number, days_ago=number / 100)
    assert kept(cache) == {0, 1, 2, 3}


def test_an_engine_that_is_being_read_or_built_is_kept(cache):
    for number in (0, 1):
        put(cache, number, days_ago=3 - number)
    with FileLock(cache.folder / f"{key(0).digest}.lock"):
        put(cache, 2)
    assert kept(cache) == {0, 2}


def test_an_engine_that_is_used_during_eviction_is_kept(cache, monkeypatch):
    put(cache, 0, days_ago=3)

    class UsedMeanwhile(FileLock):
        def acquire(self, *args, **kwargs):
            age(cache, key(0).digest, 0)
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr("finegrain.runtime.tensorrt.eviction.FileLock", UsedMeanwhile)
    evict(cache.folder, 0)
    assert kept(cache) == {0}


def test_all_files_of_an_entry_are_removed(cache):
    put(cache, 0, days_ago=3)
    unfinished = cache.folder / f"{key(0).digest}.engine.12.34.tmp"
    unfinished.write_bytes(bytes(10))
    cache.write_beside("0123456789abcdef-0123456789abcdef.kernels", b"kernels")
    cache.write_beside("0123456789abcdef.timings", b"timings")
    age(cache, "*", 3)
    evict(cache.folder, 0)
    assert {path.suffix for path in cache.folder.iterdir()} == {".lock"}


def test_other_files_are_not_removed(cache):
    others = ["thesis.json", "notes.engine", "deadbeef.txt", "0" * 64, f"{'0' * 64}.onnx"]
    for name in others:
        (cache.folder / name).write_bytes(bytes(SIZE))
    age(cache, "*", 300)
    (cache.folder / ("f" * 64 + ".engine")).symlink_to(cache.folder / "thesis.json")
    put(cache, 0, days_ago=3)
    evict(cache.folder, 0)
    kept = {path.name for path in cache.folder.iterdir() if path.suffix != ".lock"}
    assert kept == {*others, "f" * 64 + ".engine"}


def test_the_size_is_read_from_the_environment(tmp_path, monkeypatch):
    assert EngineCache(tmp_path).max_bytes == 8 << 30
    monkeypatch.setenv("FINEGRAIN_ENGINE_CACHE_GIB", "0.5")
    assert EngineCache(tmp_path).max_bytes == 1 << 29
    assert EngineCache(tmp_path, max_bytes=7).max_bytes == 7


@pytest.mark.parametrize("stated", ["much", "-1", "nan", "inf"])
def test_an_invalid_size_is_refused(tmp_path, monkeypatch, stated):
    monkeypatch.setenv("FINEGRAIN_ENGINE_CACHE_GIB", stated)
    with pytest.raises(PlanError, match=rf"_GIB is '{stated}'; expected the size .* such as 8"):
        EngineCache(tmp_path)


def test_processes_may_build_and_evict_at_once(tmp_path):
    """No process reads a partial engine, and every process gets the requested engine."""
    code = """
import random, sys
from pathlib import Path
from finegrain.runtime.tensorrt import eviction
from finegrain.runtime.tensorrt.cache import EngineCache, EngineKey

eviction.FRESH_SECONDS = -1
fields = ("backend", "version", "gpu", "driver", "precision", "buckets")
cache = EngineCache(Path(sys.argv[1]), max_bytes=3_000)
for _ in range(60):
    number = random.randrange(5)
    key = EngineKey(graph=str(number), **dict.fromkeys(fields, "x"))
    assert cache.get_or_build(key, lambda: bytes([number]) * 1000) == bytes([number]) * 1000
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3_000
