from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from finegrain.errors import PlanError
from finegrain.plan import Plan
from finegrain.runtime.tensorrt import TensorRtRuntime
from finegrain.runtime.tensorrt.cache import EngineCache, EngineKey, default_folder
from finegrain.runtime.tensorrt.cuda import Device
from finegrain.runtime.tensorrt.engines import build_members

KEY = EngineKey(
    graph="0" * 64,
    backend="tensorrt",
    version="11.4.0",
    gpu="NVIDIA L4 sm_89",
    driver="13.2",
    precision="fp16",
    buckets="[]",
)


def never():
    raise AssertionError("built again")


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def test_an_engine_is_built_once(cache):
    assert cache.get_or_build(KEY, lambda: b"engine") == b"engine"
    assert cache.get_or_build(KEY, never) == b"engine"


@pytest.mark.parametrize("field", list(asdict(KEY)))
def test_the_key_of_an_engine_depends_on_all_of_its_inputs(cache, field):
    cache.get_or_build(KEY, lambda: b"engine")
    assert cache.get_or_build(replace(KEY, **{field: "other"}), lambda: b"another") == b"another"
    assert cache.get_or_build(KEY, never) == b"engine"


@pytest.mark.parametrize("suffix", ["engine", "json"])
@pytest.mark.parametrize("content", [b"", b"engina", b"{}", None])
def test_a_damaged_entry_is_built_again(cache, suffix, content):
    cache.get_or_build(KEY, lambda: b"engine")
    path = cache.folder / f"{KEY.digest}.{suffix}"
    path.unlink() if content is None else path.write_bytes(content)
    assert cache.get_or_build(KEY, lambda: b"anew") == b"anew"
    assert cache.get_or_build(KEY, never) == b"anew"


def test_a_failed_build_leaves_nothing(cache):
    with pytest.raises(PlanError):
        cache.get_or_build(KEY, lambda: (_ for _ in ()).throw(PlanError("no")))
    assert cache.get_or_build(KEY, lambda: b"engine") == b"engine"


def test_an_interrupted_write_keeps_the_old_engine(cache, monkeypatch):
    cache.write_beside("timings", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlanError, match=r"cannot write .*: no space left on device\. Make room"):
        cache.write_beside("timings", b"new")
    assert cache.read_beside("timings") == b"old"
    assert [path.name for path in cache.folder.iterdir()] == ["timings"]


def test_two_processes_build_one_engine(tmp_path):
    code = """
import sys, time
from pathlib import Path
from finegrain.runtime.tensorrt.cache import EngineCache, EngineKey

def build():
    with open(sys.argv[1] + "/builds", "a") as file:
        file.write("built ")
    time.sleep(0.3)
    return b"engine"

fields = ("graph", "backend", "version", "gpu", "driver", "precision", "buckets")
key = EngineKey(**dict.fromkeys(fields, "x"))
assert EngineCache(Path(sys.argv[1])).get_or_build(key, build) == b"engine"
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert (tmp_path / "builds").read_text() == "built "


def test_the_folder_follows_the_xdg_variable(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/finegrain/engines")
    for other in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", other)
        assert default_folder() == Path.home() / ".cache/finegrain/engines"


def test_a_new_folder_is_private(cache):
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(PlanError, match=r"anyone may write to .*chmod o-w"):
        EngineCache(tmp_path)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match=r"cannot be kept in .*; name another folder"):
        EngineCache(tmp_path / "file" / "engines")


@pytest.fixture
def opened(make_plan, backend, trt, tmp_path):
    """``opened(trust=...)`` is the number of engines built for a plan with both engines.

    ``differing`` has wrong statements about the engine of texts.
    """

    def open_it(*, trust, about=None, damage=b"", **differing):
        device = Device(name="NVIDIA Paper sm_89", driver="13.2")
        members = build_members(Plan(make_plan()), backend, device)
        trt.builds = 0
        stem = f"engines/{backend.name}/text"
        stated = json.dumps(json.loads(members[f"{stem}.json"]) | differing).encode()
        members[f"{stem}.json"] = stated if about is None else about
        members[f"{stem}.engine"] += damage
        plan = Plan(make_plan(extra=members))
        cache = tmp_path / "cache"
        with TensorRtRuntime(plan, backend=backend.name, cache=cache, trust_engines=trust):
            return trt.builds

    return open_it


def test_an_engine_in_a_plan_is_used_with_trust_only(opened):
    assert opened(trust=True) == 0


def test_an_engine_in_a_plan_is_ignored_without_trust(opened):
    assert opened(trust=False) == 2


def test_an_engine_for_another_version_is_refused(opened, backend):
    with pytest.raises(PlanError, match=r"built for version '9\.9'; here it is version '1"):
        opened(trust=True, version="9.9")


@pytest.mark.parametrize("about", [b"", b"[]", b"{", b"[" * 100_000])
def test_an_engine_without_a_description_is_refused(opened, about):
    with pytest.raises(PlanError, match="was built for graph None"):
        opened(trust=True, about=about)


def test_a_damaged_engine_in_a_plan_is_refused(opened):
    with pytest.raises(PlanError, match=r"text.engine is damaged"):
        opened(trust=True, damage=b" ")
