from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from finegrain.errors import MissingExtraError, PlanError
from finegrain.runtime.tensorrt.backend import load_backend
from finegrain.runtime.tensorrt.build import build_engine, image_buckets, text_buckets

BUCKETS = text_buckets(40)


def graph(**more):
    return json.dumps({"inputs": ["ids", "eot"], "dim": 8} | more).encode()


def test_buckets_end_at_the_context():
    assert [bucket["ids"] for bucket in text_buckets(77)[:3]] == [(1, 16), (1, 32), (1, 77)]
    assert [bucket["ids"] for bucket in text_buckets(16)] == [(1, 16), (8, 16), (64, 16)]
    assert all(bucket["eot"] == bucket["ids"][:1] for bucket in text_buckets(77))
    assert image_buckets(384, 128)[2] == {"pixels": (64, 3, 384, 128)}


def test_an_engine_has_a_profile_for_each_bucket(backend):
    built = build_engine(backend, graph(), BUCKETS, where="a.plan")
    profiles = json.loads(built.engine[4:])["profiles"]
    assert profiles == [{name: list(shape) for name, shape in b.items()} for b in BUCKETS]


def test_timings_of_the_previous_build_are_reused(backend):
    first = build_engine(backend, graph(), BUCKETS, where="a.plan")
    second = build_engine(backend, graph(), BUCKETS, where="a.plan", timings=first.timings)
    assert second.timings == (b"" if backend.rtx else b"+timed+timed")


def test_timings_of_another_gpu_are_left_out(backend, trt):
    trt.timings_fit = False
    built = build_engine(backend, graph(), BUCKETS, where="a.plan", timings=b"of another")
    assert built.timings == (b"" if backend.rtx else b"+timed")


def test_an_unsupported_node_is_named(backend):
    with pytest.raises(PlanError, match=r"a.plan: .*: node 'block/7' \(Odd\): not known"):
        build_engine(backend, graph(odd=["block/7"]), BUCKETS, where="a.plan")


def test_inputs_of_another_graph_are_refused(backend):
    with pytest.raises(PlanError, match=r"expected inputs \['eot', 'ids'\], got \['ids', 'mask'\]"):
        build_engine(backend, graph(inputs=["ids", "mask"]), BUCKETS, where="a.plan")


def test_invalid_shapes_are_refused(backend, trt):
    trt.refused_profile = True
    with pytest.raises(PlanError, match=r"cannot run with shapes \{'ids': \(1, 16\)"):
        build_engine(backend, graph(), BUCKETS, where="a.plan")


def test_the_error_of_a_failed_build_has_tensorrts_message(backend, trt):
    trt.no_engine = True
    with pytest.raises(PlanError, match=r"cannot build an engine: no kernel for LayerNorm$"):
        build_engine(backend, graph(), BUCKETS, where="a.plan")


def test_repeated_messages_are_shown_once(backend):
    backend.messages.append("once")
    assert backend.errors() == "once"
    assert backend.errors() == "it gave no reason"


@pytest.mark.parametrize(
    ("name", "version"), [("tensorrt", "10.11.0.33"), ("tensorrt-rtx", "1.1.1.26")]
)
def test_a_too_old_version_is_refused(monkeypatch, name, version):
    load_backend.cache_clear()
    module = name.replace("-", "_")
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=version))
    with pytest.raises(MissingExtraError, match=rf'got {version}. .*"finegrain\[{name}\]"'):
        load_backend(name)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_missing_packages_are_named(monkeypatch, name):
    load_backend.cache_clear()

    def absent(module):
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=rf"finegrain\[{name}\]"):
        load_backend(name)
