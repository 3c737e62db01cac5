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
def at_hand(tiny_plan):
    """Manifest and members of a plan that is about to be written."""
    plan = Plan(tiny_plan)
    return plan.manifest, {name: plan.take(name) for name in REQUIRED}


def test_a_profile_for_no_gpu_adds_nothing(at_hand):
    assert members_of(ExportProfile(name="x"), *at_hand) == {}


def test_the_search_is_of_the_width_of_the_plan(at_hand):
    added = members_of(ExportProfile(name="x", search_depth=100), *at_hand)
    assert added.keys() == {SEARCH}
    model = onnx.load_model_from_string(added[SEARCH])
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert sizes["embeddings"][1] == sizes["gallery"][1] == 32
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.output] == [100, 100]


def test_a_search_that_cannot_be_had(at_hand):
    with pytest.raises(ExportError, match="search_depth from 1 to 3840, got 5000"):
        members_of(ExportProfile(name="x", search_depth=5000), *at_hand)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_engines_are_built_of_the_plan_as_it_is_written(at_hand, monkeypatch, name):
    backend = SimpleNamespace(rtx=name == "tensorrt-rtx")
    device = Device(name="NVIDIA Paper sm_89", driver="13.2")
    built = []

    def build(plan, backend, device):
        built.append((plan.manifest.sha256.keys(), backend, device))
        return {f"engines/{name}/text.engine": b"engine"}

    monkeypatch.setattr(gpu_members, "load_backend", lambda asked: {name: backend}[asked])
    monkeypatch.setattr(gpu_members, "Cuda", lambda: SimpleNamespace(device=lambda: device))
    monkeypatch.setattr(gpu_members, "build_members", build)
    added = members_of(ExportProfile(name="x", engine=name), *at_hand)
    assert added == {f"engines/{name}/text.engine": b"engine"}
    assert built == [({*REQUIRED}, backend, None if backend.rtx else device)]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("field", ["runtime", "engine"])
def test_a_tensorrt_that_is_not_installed(monkeypatch, name, field):
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
def test_a_gpu_is_asked_for_only_where_it_is_needed(monkeypatch, settings, needs_gpu):
    def none():
        raise PlanError("no GPU")

    monkeypatch.setattr(gpu_members, "load_backend", lambda name: None)
    monkeypatch.setattr(gpu_members, "Cuda", none)
    if not needs_gpu:
        return require_backends(ExportProfile(name="x", **settings))
    with pytest.raises(PlanError, match="no GPU"):
        require_backends(ExportProfile(name="x", **settings))
    return None
