"""Integer products of exported graphs, exact and as processors without VNNI compute them.

The instruction ``vpmaddubsw`` is emulated in NumPy, so that every processor can check the behaviour
of processors without newer instructions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters import Int8
from finegrain.exporters.int8 import (
    MAX_PAIR,
    largest_pairs,
    pair_sums,
    quantise,
    quantise_pairs,
)
from finegrain.exporters.to_onnx import (
    image_graph,
    image_graph_with_tokens,
    match_graph,
    text_graph,
)
from finegrain.methods.match_head import Matcher
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan
from finegrain.recipe import load_recipe
from finegrain.runtime import byte_products, ort
from finegrain.runtime.byte_products import PRODUCT, SLOWER_AND_EXACT, products_saturate

RECIPES = Path(__file__).parents[2] / "recipes"
DRAW = np.random.default_rng(0)
matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e3, 1e3, width=32),
)


# --- the instruction ----------------------------------------------------------------------


def exact(bytes_: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The product of uint8 ``[M, K]`` and int8 ``[K, N]`` in integers."""
    return bytes_.astype(np.int64) @ weights.astype(np.int64)


def saturating(bytes_: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same sum as ``vpmaddubsw`` and ``vpmaddwd`` compute it: pairs in 16 bits, then in 32."""
    odd = len(weights) % 2
    bytes_ = np.pad(bytes_, ((0, 0), (0, odd))).astype(np.int64)
    weights = np.pad(weights, ((0, odd), (0, 0))).astype(np.int64)
    total = np.zeros((len(bytes_), weights.shape[1]), np.int64)
    for k in range(0, len(weights), 2):
        pair = np.outer(bytes_[:, k], weights[k]) + np.outer(bytes_[:, k + 1], weights[k + 1])
        total += pair.clip(-(1 << 15), (1 << 15) - 1)
    return total


def product_graph(weights: np.ndarray) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["M", len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["M", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def run(graph: bytes, feed: dict[str, np.ndarray], outputs: list[str] | None = None) -> list:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("inner", [2, 7, 64])
def test_the_emulated_instruction_equals_that_of_this_processor(rows, inner):
    activations = DRAW.integers(128, 256, (rows, inner), np.uint8)
    weights = DRAW.integers(64, 128, (inner, 16), np.int8) * DRAW.choice([-1, 1], 16).astype("i1")
    assert (saturating(activations, weights) != exact(activations, weights)).any()
    expected = (saturating if products_saturate() else exact)(activations, weights)
    (product,) = run(product_graph(weights), {"a": activations})
    np.testing.assert_array_equal(product, expected)


def test_the_measured_product_is_two_times_255_times_127():
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])],
        [numpy_helper.from_array(np.full((2, 1), 127, np.int8), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=8)
    assert model == onnx.load_model_from_string(PRODUCT)
    byte_products.products_saturate.cache_clear()
    (product,) = run(PRODUCT, {"a": np.full((1, 2), 255, np.uint8)})
    assert products_saturate() == (product.item() == 32_767)
    assert products_saturate() == (product.item() != 64_770)


# --- weights that cannot saturate ---------------------------------------------------------


def test_one_more_than_the_largest_pair_would_saturate():
    for sign in (1, -1):
        for large, expected in ((MAX_PAIR, True), (MAX_PAIR + 1, False)):
            weights = sign * np.array([[large // 2], [large - large // 2]], np.int8)
            activations = np.full((1, 2), 255, np.uint8)
            same = saturating(activations, weights) == exact(activations, weights)
            assert same.all() == expected


@given(values=matrices)
def test_no_pair_of_quantised_weights_saturates_on_any_input(values):
    stored, scales = quantise_pairs(values)
    assert (stored.dtype, stored.shape, scales.shape) == (
        np.int8,
        values.shape,
        (1, values.shape[1]),
    )
    assert pair_sums(stored.astype(np.int64)).max() <= MAX_PAIR
    # The most extreme inputs: 255 where a weight is positive, or where it is negative.
    for above in (stored > 0, stored < 0):
        for column in range(stored.shape[1]):
            activations = np.where(above[:, column], 255, 0).astype(np.uint8)[None]
            np.testing.assert_array_equal(
                saturating(activations, stored), exact(activations, stored)
            )
    off = np.abs(stored * scales - values)
    assert (off <= np.maximum(scales * 0.5001, 2e-36)).all()


@given(weights=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
                          elements=st.integers(-128, 127)))  # fmt: skip
def test_pair_sums_equal_those_of_a_loop(weights):
    rows = [*weights, np.zeros_like(weights[0])]
    for pair, sums in enumerate(pair_sums(weights)):
        for column, largest in enumerate(sums):
            two = [int(rows[2 * pair][column]), int(rows[2 * pair + 1][column])]
            above, below = (sum(w for w in two if sign * w > 0) for sign in (1, -1))
            assert largest == max(above, -below)


def test_pairs_have_smaller_errors_than_seven_bits():
    """On weights distributed like those of a layer; the error of eight bits is the lower bound."""
    values = DRAW.standard_normal((768, 64), np.float32)

    def error(stored: np.ndarray, scales: np.ndarray) -> float:
        return float(np.square(stored * scales - values).mean())

    seven = 2 * quantise(values, axis=0)[1]
    at_seven_bits = error(np.rint(values / seven), seven)
    eight, pairs = error(*quantise(values, axis=0)), error(*quantise_pairs(values))
    assert eight < pairs < 0.6 * at_seven_bits


# --- graphs -------------------------------------------------------------------------------


@pytest.fixture(
    scope="module",
    params=[
        "clip",
        pytest.param("rasa_synthetic", marks=pytest.mark.slow),
        pytest.param("fashionbert_synthetic", marks=pytest.mark.slow),
    ],
)
def lowered(request, tiny_recipe) -> dict[str, tuple[bytes, dict[str, np.ndarray]]]:
    """The int8 graphs of two transformers, or of a method with a match head, and their inputs."""
    recipe = tiny_recipe
    if request.param != "clip":
        recipe = load_recipe(RECIPES / f"{request.param}.py").tiny()
    config = recipe.method
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = config.build(recipe.losses).eval()
    height, width = config.image.height, config.image.width
    context = config.text.context_length
    matcher = isinstance(method, Matcher)
    words = config.text.tokenizer().encode(["woman in red coat"])
    caption = {"ids": words.ids, "eot": words.eot}
    pixels = DRAW.integers(0, 256, (3, 3, height, width), np.uint8)
    image_export = image_graph_with_tokens if matcher else image_graph
    image = image_export(method, height=height, width=width, opset=23)
    graphs = {
        "text": (text_graph(method, context_length=context, opset=23), caption),
        "image": (image, {"pixels": pixels}),
    }
    if matcher:
        with torch.inference_mode():
            _, tokens, channels = method.match_tokens(torch.from_numpy(pixels)).shape
        head = match_graph(method, tokens=tokens, width=channels, context_length=context, opset=23)
        codes = DRAW.integers(-127, 128, (3, tokens, channels), np.int8)
        scales = DRAW.random((3, tokens), np.float32) / 64
        graphs["match"] = head, {**caption, "codes": codes, "scales": scales}
    return {part: (Int8().lower(graph), feed) for part, (graph, feed) in graphs.items()}


def test_products_of_real_activations_are_exact_and_saturating_alike(lowered):
    for graph, feed in lowered.values():
        model = onnx.load_model_from_string(graph)
        stored = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
        products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        inputs = [node.input[0] for node in products]
        for name in dict.fromkeys(inputs):
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
        arrays = run(model.SerializeToString(), feed, inputs) if inputs else []
        for node, activations in zip(products, arrays, strict=True):
            rows = activations.reshape(-1, activations.shape[-1])
            weights = stored[node.input[1]]
            assert rows.dtype == np.uint8
            np.testing.assert_array_equal(saturating(rows, weights), exact(rows, weights))


def test_every_product_of_an_exported_graph_keeps_the_bound(lowered):
    pairs = {
        f"{part}: {name}": pair
        for part, (graph, _) in lowered.items()
        for name, pair in largest_pairs(onnx.load_model_from_string(graph).graph).items()
    }
    assert len(pairs) > 10
    assert max(pairs.values()) <= MAX_PAIR
    assert min(pairs.values()) >= 127, "a channel that does not use its range"


def test_an_export_refuses_what_may_saturate():
    def graph(weights: list[onnx.TensorProto], inputs: list[onnx.ValueInfoProto]) -> bytes:
        nodes = [
            helper.make_node("MatMulInteger", ["a", "b"], ["y"]),
            helper.make_node("MatMul", ["x", "w"], ["z"]),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
        a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["N", 4])
        outputs = [
            helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2]),
        ]
        matrix = numpy_helper.from_array(DRAW.standard_normal((4, 2), np.float32), "w")
        built = helper.make_graph([*nodes], "g", [a, x, *inputs], outputs, [matrix, *weights])
        return helper.make_model(built).SerializeToString()

    wide = numpy_helper.from_array(np.full((4, 2), 127, np.int8), "b")
    with pytest.raises(ExportError, match=r"pairs of weights of at most 128 in b, got 254"):
        Int8().lower(graph([wide], []))
    given_as_input = helper.make_tensor_value_info("b", TensorProto.INT8, [4, 2])
    with pytest.raises(ExportError, match="expected an int8 matrix in the graph as b"):
        Int8().lower(graph([], [given_as_input]))
    unsigned = numpy_helper.from_array(np.full((4, 2), 9, np.uint8), "b")
    with pytest.raises(ExportError, match="expected an int8 matrix in the graph as b"):
        Int8().lower(graph([unsigned], []))


# --- plans of finegrain 0.1 -----------------------------------------------------------------


@pytest.fixture
def older_plan(tiny_plan, tmp_path, monkeypatch) -> Path:
    """As finegrain 0.1 exported it: weights use all eight bits, so products saturate."""
    monkeypatch.setattr(
        "finegrain.exporters.int8.quantise_pairs", lambda values: quantise(values, axis=0)
    )
    monkeypatch.setattr("finegrain.exporters.int8.MAX_PAIR", 254)
    plan = Plan(tiny_plan)
    manifest = plan.manifest
    members = {name: Int8().lower(plan.take(name)) for name in (TEXT, IMAGE)}
    stated = {name: getattr(manifest, name) for name in type(manifest).__dataclass_fields__}
    path = tmp_path / "older.plan"
    precision = dict.fromkeys(members, "int8")
    write_plan(
        path,
        type(manifest)(**{**stated, "precision": precision}),
        {**members, TOKENIZER: plan.take(TOKENIZER)},
    )
    return path


@pytest.mark.parametrize("saturates", [False, True])
def test_an_older_plan_uses_exact_kernels_if_its_products_would_saturate(
    older_plan, tiny_plan, crops, monkeypatch, saturates
):
    taken: list[bool] = []
    session = onnxruntime.InferenceSession

    def opened(graph, options, **kwargs):
        try:
            taken.append(options.get_session_config_entry(SLOWER_AND_EXACT) == "1")
        except RuntimeError:  # this entry does not exist
            taken.append(False)
        return session(graph, options, **kwargs)

    monkeypatch.setattr(ort.onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(ort, "products_saturate", lambda: saturates)
    Encoder.from_plan(Plan(older_plan))
    Encoder.from_plan(Plan(tiny_plan))
    assert taken == [saturates, saturates, False, False]


def test_an_older_plan_embeds_as_fp32_does_on_this_processor(older_plan, tiny_plan, crops):
    pictures = sorted(crops.iterdir())
    older, fp32 = Encoder.from_plan(Plan(older_plan)), Encoder.from_plan(Plan(tiny_plan))
    for encode, inputs in (("encode_texts", ["red coat", "a"]), ("encode_images", pictures)):
        ours, theirs = getattr(older, encode)(inputs), getattr(fp32, encode)(inputs)
        assert (ours * theirs).sum(axis=1).min() > 0.99
