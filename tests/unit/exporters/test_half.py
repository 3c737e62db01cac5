from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters.half import Fp16

FLOAT, HALF, INT32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32
START, END = 49406, 49407


def run(graph, **inputs):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.fixture(scope="module")
def graphs(tiny_graph):
    # In opset 23, attention is one node.
    return {name: tiny_graph(*name) for name in (("image", 18), ("text", 18), ("text", 23))}


@pytest.fixture(scope="module")
def halved(graphs):
    return {name: Fp16().lower(graph) for name, graph in graphs.items()}


def inputs(tower):
    rng = np.random.default_rng(0)
    if tower == "image":
        return {"pixels": rng.integers(0, 256, (4, 3, 128, 64), np.uint8)}
    ids = rng.integers(1, START, (4, 12)).astype(np.int32)
    ids[:, 0], ids[:, -1] = START, END
    return {"ids": ids, "eot": np.full(4, 11, np.int32)}


@pytest.fixture(params=[("image", 18), ("text", 18), ("text", 23)])
def name(request):
    return request.param


def test_fp16_agrees_with_fp32(graphs, halved, name):
    wanted, got = (run(g[name], **inputs(name[0])) for g in (graphs, halved))
    assert np.sum(wanted * got, axis=1).min() > 0.9999


def test_embeddings_are_fp32_of_length_one(halved, name):
    got = run(halved[name], **inputs(name[0]))
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_weights_are_half_the_size(graphs, halved, name):
    assert len(halved[name]) < 0.55 * len(graphs[name])


def test_every_product_is_in_fp16(halved, name):
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(halved[name]))
    values = (*model.graph.value_info, *model.graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    products = [n for n in model.graph.node if n.op_type in ("MatMul", "Conv", "Attention")]
    assert products
    assert {types[n.output[0]] for n in products} == {HALF}
    norms = [n for n in model.graph.node if n.op_type in ("LayerNormalization", "ReduceL2")]
    assert {types[n.output[0]] for n in norms} == {FLOAT}


def test_no_tensor_is_converted_to_fp16_and_back(halved, name):
    """Nothing is rounded between neighbours that both stay in fp32."""
    model = onnx.load_model_from_string(halved[name])
    casts = {n.output[0]: n for n in model.graph.node if n.op_type == "Cast"}
    assert not [n for n in casts.values() if n.input[0] in casts]


def test_start_and_end_of_text_stay_different(halved):
    """49406 and 49407 are both 49408 in fp16."""
    assert np.float16(START) == np.float16(END)
    model = onnx.load_model_from_string(halved["text", 18])
    integers = {v.name for v in model.graph.input}
    assert not [
        n
        for n in model.graph.node
        if n.op_type == "Cast"
        and integers.intersection(n.input)
        and n.attribute[0].i in (HALF, FLOAT)
    ]
    one, other = inputs("text"), inputs("text")
    other["ids"][:, -1] = START
    distance = run(halved["text", 18], **one) - run(halved["text", 18], **other)
    assert np.abs(distance).max() > 1e-3


def make_graph(nodes, weights, *, inputs=(), output=(FLOAT, [1, 2])):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info("y", *output)],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def product(weight):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "table"], ["y"]),
    ]
    weights = {"table": np.eye(2), "w": weight}
    return make_graph(nodes, weights, inputs=[("ids", INT32, [1])])


def test_a_weight_may_be_read_in_both_types():
    """The table is in fp16 for the look-up, and stays in fp32 for the last product."""
    lowered = Fp16().lower(product([[1, 2], [3, 4]]))
    kept = {w.name: w.data_type for w in onnx.load_model_from_string(lowered).graph.initializer}
    assert kept == {"table": FLOAT, "table_fp16": HALF, "w_fp16": HALF}
    np.testing.assert_array_equal(run(lowered, ids=np.array([1], np.int32)), [[3, 4]])


@pytest.mark.parametrize("value", [65520, -1e5])
def test_a_weight_beyond_fp16_is_refused(value):
    with pytest.raises(ExportError, match=rf"got {value:g} in w, and fp16 ends at 65504"):
        Fp16().lower(product([[1, 2], [3, value]]))


def test_masks_are_clipped_to_the_range_of_fp16():
    least = float(np.finfo(np.float32).min)
    lowered = Fp16().lower(product([[1, 2], [3, least]]))
    (w,) = [w for w in onnx.load_model_from_string(lowered).graph.initializer if w.name == "w_fp16"]
    assert numpy_helper.to_array(w)[1, 1] == np.finfo(np.float16).min


def test_a_constant_node_is_supported():
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.float32([[1, 2], [3, 4]]), "c")
    )
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        constant,
        helper.make_node("MatMul", ["x", "c"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "table"], ["z"]),
        helper.make_node("Identity", ["z"], ["y"]),
    ]
    graph = make_graph(nodes, {"table": np.eye(2)}, inputs=[("ids", INT32, [1])])
    lowered = Fp16().lower(graph)
    np.testing.assert_array_equal(run(lowered, ids=np.array([0], np.int32)), [[1, 2]])


def test_a_graph_inside_a_node_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", FLOAT, [1, 2])],
    )
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["x"]),
        helper.make_node("If", ["yes"], ["h"], name="pick", then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    inputs = [("ids", INT32, [1]), ("yes", TensorProto.BOOL, [])]
    with pytest.raises(ExportError, match=r"node 'pick' \(If\) contains a graph"):
        Fp16().lower(make_graph(nodes, {"w": np.eye(2)}, inputs=inputs))
