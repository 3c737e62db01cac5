from __future__ import annotations

import sys
from types import SimpleNamespace

import onnx
import pytest

from finegrain.errors import ExportError, MissingExtraError, PlanError
from finegrain.exporters import ExportProfile, gpu_members
from finegrain.exporters.gpu_members import gpu_members as members_of
from finegrain.exporters.gpu_members import require_backends
from finegrain.plan import REQUIRED, SEARCH, Plan
from finegrain.runtime.tensorrt.backend import load_backend
from finegrain.runtime.tensorrt.cuda import Device


@pytest.fixture
def manifest_and_members(tiny_plan):
    """Manifest and members of a plan before it is written."""
    plan = Plan(tiny_plan)
    return plan.manifest, {name: plan.take(name) for name in REQUIRED}


def test_a_profile_without_gpu_adds_no_members(manifest_and_members):
    assert members_of(ExportProfile(name="x"), *manifest_and_members) == {}


def test_the_search_graph_has_the_width_of_the_plan(manifest_and_members):
    added = members_of(ExportProfile(name="x", search_depth=100), *manifest_and_members)
    assert added.keys() == {SEARCH}
    model = onnx.load_model_from_string(added[SEARCH])
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert sizes["embeddings"][1] == sizes["gallery"][1] == 32
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.output] == [100, 100]


def test_an_impossible_search_graph_is_refused(manifest_and_members):
    with pytest.raises(ExportError, match="search_depth from 1 to 3840, got 5000"):
        members_of(ExportProfile(name="x", search_depth=5000), *manifest_and_members)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_engines_are_built_from_the_written_plan(manifest_and_members, monkeypatch, name):
    backend = SimpleNamespace(rtx=name == "tensorrt-rtx")
    device = Device(name="NVIDIA Paper sm_89", driver="13.2")
    built = []

    def build(plan, backend, device):
        built.append((plan.manifest.sha256.keys(), backend, device))
        return {f"engines/{name}/text.engine": b"engine"}

    monkeypatch.setattr(gpu_members, "load_backend", lambda asked: {name: backend}[asked])
    monkeypatch.setattr(gpu_members, "Cuda", lambda: SimpleNamespace(device=lambda: device))
    monkeypatch.setattr(gpu_members, "build_members", build)
    added = members_of(ExportProfile(name="x", engine=name), *manifest_and_members)
    assert added == {f"engines/{name}/text.engine": b"engine"}
    assert built == [({*REQUIRED}, backend, None if backend.rtx else device)]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("field", ["runtime", "engine"])
def test_a_missing_tensorrt_is_an_error(monkeypatch, name, field):
    load_backend.cache_clear()
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    with pytest.raises(MissingExtraError, match=rf"finegrain\[{name}\]"):
        require_backends(ExportProfile(name="x", **{field: name}))
    load_backend.cache_clear()


@pytest.mark.parametrize(
    ("settings", "needs_gpu"),
    [
        ({"engine": "tensorrt"}, True),
        ({"engine": "tensorrt-rtx"}, False),
        ({"runtime": "tensorrt"}, True),
        ({"runtime": "tensorrt-rtx"}, True),
        ({}, False),
    ],
)
def test_a_gpu_is_required_only_if_needed(monkeypatch, settings, needs_gpu):
    def none():
        raise PlanError("no GPU")

    monkeypatch.setattr(gpu_members, "load_backend", lambda name: None)
    monkeypatch.setattr(gpu_members, "Cuda", none)
    if not needs_gpu:
        return require_backends(ExportProfile(name="x", **settings))
    with pytest.raises(PlanError, match="no GPU"):
        require_backends(ExportProfile(name="x", **settings))
    return None
