from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters import ExportProfile, Fp16, export_plan, fp8
from finegrain.exporters.fp8 import SMALLEST_SCALE, Fp8, scale_of
from finegrain.plan import IMAGE, REQUIRED, SEARCH, TEXT, Plan
from finegrain.records import Sample

FLOAT, HALF, E4M3 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN
START, END = 49406, 49407


def run(graph, **inputs):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def inputs(tower, seed=0):
    rng = np.random.default_rng(seed)
    if tower == "image":
        return {"pixels": rng.integers(0, 256, (4, 3, 128, 64), np.uint8)}
    ids = rng.integers(1, START, (4, 12)).astype(np.int32)
    ids[:, 0], ids[:, -1] = START, END
    return {"ids": ids, "eot": np.full(4, 11, np.int32)}


@pytest.fixture(scope="module")
def graphs(tiny_graph):
    # In opset 23, attention is one node.
    return {"image": tiny_graph("image", 21), "text": tiny_graph("text", 23)}


@pytest.fixture(scope="module")
def lowered(graphs):
    return {tower: Fp8().lower(graph, [inputs(tower, 1)]) for tower, graph in graphs.items()}


@pytest.fixture(params=["image", "text"])
def tower(request):
    return request.param


def test_fp8_agrees_with_fp32(graphs, lowered, tower):
    wanted, got = (run(g[tower], **inputs(tower)) for g in (graphs, lowered))
    assert np.sum(wanted * got, axis=1).min() > Fp8().min_cosine
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("times", [2**-6, 2**15])
def test_a_wrong_scale_falls_below_the_bound(graphs, tower, times, monkeypatch):
    """With a too small scale, activations are clipped. With a too large one, they are rounded to
    zero."""
    monkeypatch.setattr(fp8, "HEADROOM", times)
    wrong = Fp8().lower(graphs[tower], [inputs(tower, 1)])
    wanted, got = (run(graph, **inputs(tower)) for graph in (graphs[tower], wrong))
    assert np.sum(wanted * got, axis=1).min() < Fp8().min_cosine


def products_of(model):
    """Linear layers by the operators before input and weight."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    matrices = {w.name for w in model.graph.initializer if len(w.dims) == 2}
    return [
        tuple(makers.get(name, "weight" if name in matrices else None) for name in node.input[:2])
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm")
    ]


def test_every_linear_layer_but_the_last_is_fp8(graphs, lowered, tower):
    before = products_of(onnx.load_model_from_string(Fp16().lower(graphs[tower])))
    after = products_of(onnx.load_model_from_string(lowered[tower]))
    linear = [place for place, (_, weight) in enumerate(before) if weight == "weight"]
    # Two blocks with qkv or q, k, v, the output and two layers of the MLP, and the projection.
    assert len(linear) >= 9
    for place, (x, weight) in enumerate(after):
        if place in linear[:-1]:
            assert (x, weight) == ("DequantizeLinear", "DequantizeLinear")
        else:
            assert (x, weight) == before[place]


def test_a_tensor_is_quantised_once_for_all_layers_that_read_it(lowered, tower):
    model = onnx.load_model_from_string(lowered[tower])
    rounded = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) == len(set(rounded))


def test_only_scales_and_8_bit_values_are_added(lowered, graphs, tower):
    model = onnx.load_model_from_string(lowered[tower])
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert sum(kind == E4M3 for kind in kinds.values()) > 4
    read = {name for node in model.graph.node for name in node.input}
    assert kinds.keys() <= read
    assert len(lowered[tower]) < len(Fp16().lower(graphs[tower]))


def test_scales_are_powers_of_two_and_clip_nothing(lowered, tower):
    model = onnx.load_model_from_string(lowered[tower])
    scales = [
        float(numpy_helper.to_array(w)) for w in model.graph.initializer if "_scale" in w.name
    ]
    assert scales
    for scale in scales:
        assert np.frexp(scale)[0] == 0.5
        assert scale >= SMALLEST_SCALE


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(448, 1), (448.1, 2), (224, 0.5), (225, 1), (1e6, 4096), (0, SMALLEST_SCALE), (1e-9, 2**-14)],
)
def test_the_largest_value_is_scaled_into_the_last_octave(largest, scale):
    assert scale_of(largest) == scale
    assert largest / scale <= 448


def graph_of(*nodes, weights, opset=21, shape=("N", 4)):
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


LAYERS = (
    helper.make_node("MatMul", ["x", "a"], ["h"]),
    helper.make_node("Relu", ["h"], ["r"]),
    helper.make_node("MatMul", ["r", "b"], ["z"]),
    helper.make_node("Identity", ["z"], ["y"]),
)
EYES = {"a": np.eye(4), "b": np.eye(4)}


def test_the_scale_comes_from_all_batches_with_a_margin():
    batches = [{"x": np.full((2, 4), value, np.float32)} for value in (3.0, -100.0, 7.0)]
    model = onnx.load_model_from_string(Fp8().lower(graph_of(*LAYERS, weights=EYES), batches))
    (scale,) = [w for w in model.graph.initializer if w.name.startswith("x_") and "scale" in w.name]
    # A value of twice 100 is in range.
    assert float(numpy_helper.to_array(scale)) == 0.5


def test_a_layer_of_zeros_is_quantised():
    weights = {"a": np.zeros((4, 4)), "b": np.eye(4)}
    lowered = Fp8().lower(graph_of(*LAYERS, weights=weights), [{"x": np.ones((1, 4), np.float32)}])
    assert not run(lowered, x=np.ones((2, 4), np.float32)).any()


def test_calibration_without_batches_is_refused():
    with pytest.raises(ExportError, match=r"got none; export with a dataset: --data"):
        Fp8().lower(graph_of(*LAYERS, weights=EYES))


def test_an_opset_without_fp8_is_refused():
    with pytest.raises(ExportError, match="of opset 18; set opset=21 in the profile"):
        Fp8().lower(graph_of(*LAYERS, weights=EYES, opset=18), [])


def test_a_tower_without_linear_layers_is_refused():
    graph = graph_of(*LAYERS[2:], weights={"b": np.eye(4)}).replace(b"r", b"x")
    with pytest.raises(ExportError, match=r"no linear layer before its last.*set Fp16\(\)"):
        Fp8().lower(graph, [{"x": np.ones((1, 4), np.float32)}])


def test_activations_beyond_fp16_are_refused():
    weights = {"a": 60_000 * np.eye(4), "c": np.eye(4), "b": np.eye(4)}
    layers = (*LAYERS[:2], helper.make_node("MatMul", ["r", "c"], ["s"]))
    last = helper.make_node("MatMul", ["s", "b"], ["z"])
    graph = graph_of(*layers, last, LAYERS[3], weights=weights)
    with pytest.raises(ExportError, match=r"reaches inf in fp16.*; export this model in fp32"):
        Fp8().lower(graph, [{"x": np.full((1, 4), 9, np.float32)}])


def test_an_export_calibrates_both_towers(
    graphs, tiny_recipe, tiny_method, crops, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_plan, "text_graph", lambda method, **sizes: graphs["text"])
    monkeypatch.setattr(export_plan, "image_graph", lambda method, **sizes: graphs["image"])
    captions = [f"a person of {n} years in a coat of colour {n * 7}" for n in range(200)]
    samples = [
        Sample(image=picture, captions=tuple(captions[n::12]), pid=n)
        for n, picture in enumerate(sorted(crops.iterdir()))
    ]
    # Random towers embed all pictures in nearly one place, so any rounding changes their order.
    profile = ExportProfile(
        name="x",
        opset=21,
        text=Fp8(min_cosine=0.9),
        image=Fp8(min_cosine=0.9),
        min_overlap=0,
        min_rank1_agreement=0,
        max_drift=100,
        search_depth=20,
    )
    path = tmp_path / "model.plan"
    export_plan.export_method(
        tiny_recipe,
        tiny_method,
        profile,
        path,
        checkpoint="c" * 64,
        samples=samples,
        compared_on="twelve crops",
    )
    plan = Plan(path)
    assert plan.manifest.precision == {TEXT: "fp8", IMAGE: "fp8"}
    assert plan.manifest.sha256.keys() == {*REQUIRED, SEARCH}
    for member in (TEXT, IMAGE):
        model = onnx.load_model_from_string(plan.take(member))
        assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
