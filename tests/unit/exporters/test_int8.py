from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

import finegrain
from finegrain.exporters import Int8
from finegrain.exporters.int8 import quantise

BOTH = pytest.mark.parametrize("int8", [Int8(), Int8(activations="fp32")], ids=["dynamic", "fp32"])
matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(values=matrices, axis=st.integers(0, 1))
def test_the_rounding_error_is_at_most_half_a_step_of_the_channel(values, axis):
    stored, scales = quantise(values, axis=axis)
    assert stored.dtype == np.int8
    assert stored.min() >= -127
    assert (scales > 0).all()
    off = np.abs(stored * scales - values)
    # A channel below the normal numbers of fp32 is stored as zero.
    assert (off <= np.maximum(scales * 0.5001, 2e-36)).all()


def graph_of(nodes, inputs, weights) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", "K"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def run(graph: bytes, **inputs):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def ops(graph: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(graph).graph.node}


X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])
DRAW = np.random.default_rng(0)
W, B = DRAW.standard_normal((16, 8), np.float32), DRAW.standard_normal(8, np.float32)
LINEAR = {
    "matmul": (helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": W}),
    "gemm": (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), {"w": W, "b": B}),
    "transposed": (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), {"w": W.T.copy()}),
}


@BOTH
@pytest.mark.parametrize("kind", LINEAR)
def test_products_in_all_spellings_are_lowered(int8, kind):
    node, weights = LINEAR[kind]
    graph = graph_of([node], [X], weights)
    lowered = int8.lower(graph)
    onnx.checker.check_model(onnx.load_model_from_string(lowered), full_check=True)
    assert ("MatMulInteger" in ops(lowered)) == (int8.activations == "dynamic")
    x = DRAW.standard_normal((5, 16), np.float32)
    np.testing.assert_allclose(run(lowered, x=x), run(graph, x=x), atol=0.15)
    stored = onnx.load_model_from_string(lowered).graph.initializer
    assert [w.data_type for w in stored if len(w.dims) == 2] == [TensorProto.INT8]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Gemm", ["x", "w"], ["y"], alpha=2.0),
        helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
        helper.make_node("MatMul", ["x", "x"], ["y"]),
    ],
    ids=["scaled", "transposed", "of activations"],
)
def test_other_products_are_unchanged(node):
    graph = graph_of([node], [X], {"w": W})
    assert Int8().lower(graph) == graph


@BOTH
def test_a_table_has_one_scale_per_row(int8):
    table = (
        DRAW.standard_normal((9, 8), np.float32) * np.logspace(-4, 4, 9, dtype=np.float32)[:, None]
    )
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["N"])
    graph = graph_of([helper.make_node("Gather", ["w", "ids"], ["y"])], [ids], {"w": table})
    picked = np.array([8, 0, 3], np.int32)
    got, wanted = run(int8.lower(graph), ids=picked), table[picked]
    assert (np.abs(got - wanted) <= np.abs(wanted).max(axis=1, keepdims=True) / 254 * 1.001).all()


@pytest.fixture(scope="module", params=[18, 23])
def graphs(request, tiny_graph):
    """Both towers in fp32; of opset 23, attention is one node."""
    opset = request.param
    return {"opset": opset, "text": tiny_graph("text", opset), "image": tiny_graph("image", opset)}


@BOTH
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_lowered_towers_take_any_batch_and_length(graphs, int8, batch):
    text, image = int8.lower(graphs["text"]), int8.lower(graphs["image"])
    pixels = DRAW.integers(0, 256, (batch, 3, 128, 64), np.uint8)
    assert cosine(run(image, pixels=pixels), run(graphs["image"], pixels=pixels)) > 0.99
    for length in (2, 5, 77):
        ids = DRAW.integers(1, 49406, (batch, length), np.int32)
        feed = {"ids": ids, "eot": np.full(batch, length - 1, np.int32)}
        assert cosine(run(text, **feed), run(graphs["text"], **feed)) > 0.99


def cosine(a, b) -> float:
    return float(np.sum(a * b, axis=1).min())


@pytest.mark.parametrize("lower", [lambda graph: graph, Int8().lower], ids=["fp32", "int8"])
def test_ids_are_only_ever_looked_up(graphs, lower):
    """49406 and 49407 are equal in fp16, so ids must not be converted to floats, and no arg-max may
    search for the largest id."""
    graph = onnx.load_model_from_string(lower(graphs["text"])).graph
    assert "ArgMax" not in {node.op_type for node in graph.node}
    integers, readers = {"ids", "eot"}, set()
    for node in graph.node:
        read = [i for i, name in enumerate(node.input) if name in integers]
        if not read or node.op_type in ("Shape", "Gather", "GatherND"):
            readers.update(node.input[i] for i in read)
            continue
        if node.op_type == "Cast":
            (to,) = (a.i for a in node.attribute if a.name == "to")
            assert to in (TensorProto.INT32, TensorProto.INT64), node.name
        integers.update(node.output)
    assert readers & {"ids"}
    assert "embeddings" not in integers


@pytest.mark.parametrize("tower", ["text", "image"])
def test_attention_is_one_node_if_the_opset_has_it(graphs, tower):
    for graph in (graphs[tower], Int8().lower(graphs[tower])):
        kinds = [node.op_type for node in onnx.load_model_from_string(graph).graph.node]
        assert kinds.count("Attention") == (2 if graphs["opset"] >= 23 else 0)
        assert kinds.count("Softmax") == (0 if graphs["opset"] >= 23 else 2)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_no_trace_of_the_exporting_machine_is_in_a_lowered_graph(graphs, tower):
    graph = Int8().lower(graphs[tower])
    for trace in (sys.prefix, str(Path(finegrain.__file__).parents[1]), ".py", 'File "'):
        assert trace.encode() not in graph
