from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from finegrain.errors import ExportError
from finegrain.exporters import load_profile
from finegrain.exporters.triton import TritonServing, write_triton_repository
from finegrain.plan import FORMAT_VERSION, IMAGE, TEXT, TOKENIZER, Plan, write_plan
from finegrain.preprocess import Tokenizer

EXPORT = Path(__file__).parents[3] / "export"
SERVING = TritonServing(max_batch=16, max_delay_us=0, max_queue=7, instances=2)


@pytest.fixture
def repository(tiny_plan, tmp_path):
    folder = tmp_path / "models"
    assert write_triton_repository(Plan(tiny_plan), folder, serving=SERVING) == "model"
    return folder


def parsed(path):
    """A configuration as Triton parses it: unknown and repeated fields are errors."""
    pytest.importorskip("tritonclient", reason='tritonclient is absent: "finegrain[triton]"')
    text_format = pytest.importorskip("google.protobuf.text_format")
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_repository_has_both_towers_and_the_files_of_clients(repository, tiny_plan):
    assert files(repository) == [
        "model_image/1/model.onnx",
        "model_image/config.pbtxt",
        "model_text/1/model.onnx",
        "model_text/config.pbtxt",
        "model_text/manifest.json",
        "model_text/tokenizer.json",
    ]
    plan = Plan(tiny_plan)
    for member, path in (
        (TEXT, "model_text/1/model.onnx"),
        (IMAGE, "model_image/1/model.onnx"),
        (TOKENIZER, "model_text/tokenizer.json"),
    ):
        content = (repository / path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == plan.manifest.sha256[member]


def test_the_tokenizer_step_equals_the_plans_tokenizer(repository, tiny_plan):
    stated = json.loads((repository / "model_text" / "manifest.json").read_text())
    assert stated["fingerprint"] == Plan(tiny_plan).manifest.fingerprint
    assert (stated["height"], stated["width"], stated["format_version"]) == (
        128,
        64,
        FORMAT_VERSION,
    )
    theirs = Tokenizer.from_json(
        (repository / "model_text" / "tokenizer.json").read_bytes(),
        context_length=stated["context_length"],
    ).encode(["red coat"])
    ours = Tokenizer.from_json(Plan(tiny_plan).take(TOKENIZER), context_length=77).encode(
        ["red coat"]
    )
    assert theirs.ids.tolist() == ours.ids.tolist()


@pytest.mark.parametrize("tower", ["text", "image"])
def test_triton_parses_the_configuration(repository, tiny_plan, tower):
    config = parsed(repository / f"model_{tower}" / "config.pbtxt")
    assert config.name == f"model_{tower}"
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 16
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7
    assert [group.count for group in config.instance_group] == [2]
    assert config.parameters["fingerprint"].string_value == Plan(tiny_plan).manifest.fingerprint


@pytest.mark.parametrize("tower", ["text", "image"])
def test_the_configuration_describes_the_graph(repository, tower):
    """Names, types and shapes as Triton's ONNX Runtime backend compares them with the graph."""
    onnx = pytest.importorskip("onnx")
    folder = repository / f"model_{tower}"
    config, graph = parsed(folder / "config.pbtxt"), onnx.load(folder / "1" / "model.onnx").graph

    def stated(tensor, reshaped):
        dims = list(tensor.reshape.shape) if reshaped else list(tensor.dims)
        types = {"TYPE_INT32": "INT32", "TYPE_UINT8": "UINT8", "TYPE_FP32": "FLOAT"}
        name = type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
        return tensor.name, types[name[tensor.data_type].name], [-1, *dims]

    def held(value):
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        return value.name, onnx.TensorProto.DataType.Name(kind.elem_type), dims

    inputs = [stated(i, i.HasField("reshape")) for i in config.input]
    assert inputs == [held(value) for value in graph.input]
    assert [stated(o, False) for o in config.output] == [held(value) for value in graph.output]


def test_every_shape_that_clients_send_is_warmed_up(repository):
    text = parsed(repository / "model_text" / "config.pbtxt")
    shapes = [(list(w.inputs["ids"].dims), list(w.inputs["eot"].dims)) for w in text.model_warmup]
    assert shapes == [([16], [1]), ([32], [1]), ([77], [1])]
    image = parsed(repository / "model_image" / "config.pbtxt")
    (warmup,) = image.model_warmup
    assert list(warmup.inputs["pixels"].dims) == [3, 128, 64]
    assert all(w.batch_size == 1 for w in (*text.model_warmup, warmup))


def test_several_plans_share_a_repository(repository, tiny_plan):
    assert write_triton_repository(Plan(tiny_plan), repository, serving=SERVING, name="b") == "b"
    assert {path.name for path in repository.iterdir()} == {
        f"{name}_{tower}" for name in ("model", "b") for tower in ("text", "image")
    }


def test_an_existing_model_is_not_replaced(repository, tiny_plan):
    shutil.rmtree(repository / "model_text")
    before = files(repository)
    with pytest.raises(ExportError, match="already holds model_image"):
        write_triton_repository(Plan(tiny_plan), repository, serving=SERVING)
    assert files(repository) == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a b", 'a"', "ä", "-a", "a" * 101])
def test_an_invalid_name_is_refused(tiny_plan, tmp_path, name):
    with pytest.raises(ExportError, match="expected a name of letters"):
        write_triton_repository(Plan(tiny_plan), tmp_path / "m", serving=SERVING, name=name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_files(tiny_plan, tmp_path, monkeypatch):
    real, moved = os.rename, []

    def rename(source, target):
        if moved:
            raise OSError(28, "No space left on device")
        moved.append(target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ExportError, match=r"cannot write .*models: No space left on device\. Make"):
        write_triton_repository(Plan(tiny_plan), tmp_path / "models", serving=SERVING)
    assert len(moved) == 1
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tiny_plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ExportError, match=r"cannot write the model repository .*file/models: Not a"
    ):
        write_triton_repository(Plan(tiny_plan), tmp_path / "file" / "models", serving=SERVING)


@pytest.mark.parametrize("field", ["max_batch", "max_queue", "instances", "max_delay_us"])
def test_a_plan_that_cannot_be_served_is_refused(field):
    least = 0 if field == "max_delay_us" else 1
    assert getattr(replace(SERVING, **{field: least}), field) == least
    with pytest.raises(ExportError, match=f"expected {field} of {least} or more, got {least - 1}"):
        replace(SERVING, **{field: least - 1})


def test_engines_of_a_plan_are_not_copied(tiny_plan, tmp_path):
    plan = Plan(tiny_plan)
    members = {member: plan.take(member) for member in (TEXT, IMAGE, TOKENIZER)}
    members["engines/tensorrt/text.engine"] = b"ptrt"
    write_plan(tmp_path / "x.plan", plan.manifest, members)
    write_triton_repository(Plan(tmp_path / "x.plan"), tmp_path / "models", serving=SERVING)
    assert not any("engine" in name for name in files(tmp_path / "models"))


def test_the_profile_of_this_checkout_asks_for_a_repository():
    profile = load_profile(EXPORT / "triton.py")
    assert profile.triton == TritonServing()
    assert load_profile(EXPORT / "onnx_fp32.py").triton is None
