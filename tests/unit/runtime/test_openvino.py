from __future__ import annotations

import io
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from finegrain.encoder import Encoder
from finegrain.errors import MissingExtraError, PlanError
from finegrain.plan import IMAGE, MANIFEST, TEXT, Plan, write_plan

CAPTIONS = ["red coat", "a man with a green backpack and blue jeans", ""]


@pytest.fixture(scope="module")
def encoder(tiny_plan) -> Encoder:
    pytest.importorskip("openvino")
    return Encoder.from_plan(Plan(tiny_plan), runtime="openvino", threads=1)


@pytest.fixture
def changed(tiny_plan, tmp_path):
    """``changed(text=..., embed_dim=...)`` is a plan with other members or manifest fields."""
    pytest.importorskip("openvino")
    with zipfile.ZipFile(tiny_plan) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}

    def make(exchange: bool = False, **given):
        members = dict(held)
        if exchange:
            members[TEXT], members[IMAGE] = held[IMAGE], held[TEXT]
        members |= {name: value for name, value in given.items() if name in held}
        facts = {name: value for name, value in given.items() if name not in held}
        manifest = Plan(tiny_plan).manifest
        write_plan(tmp_path / "x.plan", replace(manifest, **facts), members)
        return Plan(tmp_path / "x.plan")

    return make


def test_it_agrees_with_onnx_runtime(encoder, tiny_plan, crops):
    ort = Encoder.from_plan(Plan(tiny_plan), threads=1)
    pictures = sorted(crops.iterdir())
    for batch_size in (1, 5):
        encoder.batch_size = batch_size
        for encode, inputs in (("encode_texts", CAPTIONS), ("encode_images", pictures)):
            got, wanted = getattr(encoder, encode)(inputs), getattr(ort, encode)(inputs)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_int8_weights_nearly_agree_with_fp32(encoder, changed, tiny_plan, crops):
    from finegrain.exporters import Int8

    fp32, int8 = Plan(tiny_plan), Int8(activations="fp32")
    lowered = changed(**{member: int8.lower(fp32.take(member)) for member in (TEXT, IMAGE)})
    small = Encoder.from_plan(lowered, runtime="openvino", threads=1)
    for encode, inputs in (("encode_texts", CAPTIONS), ("encode_images", sorted(crops.iterdir()))):
        got, wanted = getattr(small, encode)(inputs), getattr(encoder, encode)(inputs)
        cosine = np.sum(got * wanted, axis=1)
        assert cosine.min() > 0.99
        assert cosine.min() < 1 - 1e-6


def test_embeddings_are_not_overwritten_by_the_next_run(encoder):
    tokens = encoder.tokenizer.encode(["red coat"])
    first = encoder.runtime.encode_texts(tokens.ids, tokens.eot)
    kept = first.copy()
    encoder.encode_texts(["blue hat"])
    np.testing.assert_array_equal(first, kept)


def test_threads_may_share_it(encoder):
    wanted = {caption: encoder.encode_texts([caption]) for caption in CAPTIONS}
    with ThreadPoolExecutor(4) as pool:
        asked = CAPTIONS * 10
        result = list(pool.map(lambda caption: encoder.encode_texts([caption]), asked))
    for caption, got in zip(asked, result, strict=True):
        np.testing.assert_allclose(got, wanted[caption], atol=1e-6)


def test_an_invalid_graph_is_refused(changed):
    with pytest.raises(PlanError, match=r"OpenVINO cannot load text\.onnx"):
        Encoder.from_plan(changed(**{TEXT: b"garbage"}), runtime="openvino")


def test_exchanged_graphs_are_refused(changed, crops):
    encoder = Encoder.from_plan(changed(exchange=True), runtime="openvino", threads=1)
    with pytest.raises(PlanError, match=r"text\.onnx does not take"):
        encoder.encode_texts(["red coat"])
    with pytest.raises(PlanError, match=r"image\.onnx does not take"):
        encoder.encode_images([crops / "00.jpg"])


def test_sizes_that_the_graph_does_not_have_are_refused(changed, crops):
    encoder = Encoder.from_plan(changed(embed_dim=64, height=64), runtime="openvino", threads=1)
    with pytest.raises(PlanError, match=r"gives \[1, 32\], and the manifest says .* 64"):
        encoder.encode_texts(["red coat"])
    with pytest.raises(PlanError, match=r"image\.onnx does not take"):
        encoder.encode_images([crops / "00.jpg"])


def test_without_openvino_the_extra_is_named(tiny_plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'pip install "finegrain\[openvino\]"'):
        Encoder.from_plan(Plan(tiny_plan), runtime="openvino")


def test_an_unknown_runtime_is_refused(tiny_plan):
    with pytest.raises(PlanError, match=r"runtime out of onnxruntime, openvino.*, got 'tflite'"):
        Encoder.from_plan(Plan(tiny_plan), runtime="tflite")


@pytest.mark.parametrize("rows", [1, 64])
def test_products_of_int8_weights_do_not_saturate(rows):
    """Checked with the largest weights and inputs, on any processor."""
    openvino = pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    weights = np.full((64, 16), 127, np.int8) * np.array([1, -1] * 8, np.int8)
    scales = np.full(16, 1 / 127, np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], axis=1),
            onnx.helper.make_node("MatMul", ["x", "wide"], ["y"]),
        ],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 16])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(scales, "s")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    core = openvino.Core()
    read = core.read_model(io.BytesIO(model.SerializeToString()))
    inputs = np.linspace(0.9, 1, rows * 64, dtype=np.float32).reshape(rows, 64)
    (product,) = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        inputs
    ).values()
    np.testing.assert_allclose(product, inputs @ (weights * scales), rtol=0.01)
