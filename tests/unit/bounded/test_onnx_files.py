"""A graph of a plan reads no other file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from finegrain.bounded.onnx_files import MAX_FIELDS, reads_files
from finegrain.errors import PlanError
from finegrain.plan import MANIFEST, Plan, write_plan

onnx = pytest.importorskip("onnx")


def tensor(*, external: bool, name: str = "w"):
    made = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value="secret.bin")
    return made


def graph(tensors=(), nodes=()):
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
    return onnx.helper.make_graph(list(nodes), "g", [], [output], list(tensors))


def at_every_place(external: bool):
    """Models with a tensor in each place where the format allows one."""
    helper = onnx.helper
    held = tensor(external=external)
    inner = graph([held])
    sparse = onnx.SparseTensorProto(values=held)
    for node in (
        helper.make_node("Constant", [], ["y"], value=held),
        helper.make_node("Other", [], ["y"], many=[held]),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph()),
        helper.make_node("Many", [], ["y"], graphs=[graph(), inner]),
        helper.make_node("Sparse", [], ["y"], value=sparse),
    ):
        yield helper.make_model(graph(nodes=[node]))
        model = helper.make_model(graph())
        model.functions.append(
            helper.make_function("d", "f", [], ["y"], [node], [helper.make_opsetid("", 17)])
        )
        yield model
    yield helper.make_model(inner)
    model = helper.make_model(graph())
    model.graph.sparse_initializer.append(sparse)
    yield model
    model = helper.make_model(graph())
    model.training_info.add(algorithm=inner)
    yield model


@pytest.mark.parametrize("external", [False, True])
def test_external_tensors_are_detected_in_every_place(external: bool):
    models = list(at_every_place(external))
    assert [reads_files(m.SerializeToString()) for m in models] == [external] * len(models)


def test_a_location_is_enough_and_other_files_have_no_external_data():
    made = tensor(external=True)
    made.ClearField("external_data")
    model = onnx.helper.make_model(graph([made])).SerializeToString()
    assert reads_files(model)
    for length in range(len(model) - 1):
        assert reads_files(model[:length]) in (False, True)
    for data in (b"", b"text.onnx", b"\xff" * 99, b"\x3a\xff\xff\xff\xff\x0f"):
        assert not reads_files(data)


def test_work_is_bounded():
    with pytest.raises(ValueError, match="fields"):
        reads_files(b"\x08\x01" * (MAX_FIELDS + 1))


def changed(plan: Path, target: Path, **members: bytes) -> Path:
    opened = Plan(plan)
    kept = {name: opened.take(name) for name in opened.manifest.sha256}
    write_plan(target, opened.manifest, {**kept, **members})
    return target


def test_a_plan_with_external_data_is_refused(plan: Path, tmp_path: Path):
    model = onnx.helper.make_model(graph([tensor(external=True)])).SerializeToString()
    path = changed(plan, tmp_path / "bad.plan", **{"text.onnx": model})
    with pytest.raises(PlanError, match=r"text\.onnx has tensors whose data is in other files"):
        Plan(path)
    path = changed(plan, tmp_path / "bad.plan", **{"image.onnx": b"\x08\x01" * (MAX_FIELDS + 1)})
    with pytest.raises(PlanError, match="is not a valid graph"):
        Plan(path)


@pytest.mark.parametrize("version", [0, -5, True, False, 1.0, "1", None, [1]])
def test_a_format_version_is_a_whole_number_above_zero(plan: Path, tmp_path: Path, version):
    path = tmp_path / "changed.plan"
    with zipfile.ZipFile(plan) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == MANIFEST:
                data = json.dumps({**json.loads(data), "format_version": version}).encode()
            new.writestr(name, data)
    with pytest.raises(PlanError, match="expected a format version of 1 or more"):
        Plan(path)
