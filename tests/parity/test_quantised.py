"""Int8 products as ONNX defines them, compared with the same arithmetic one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, load_model_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

from finegrain.exporters import Int8


def graph_of(weights) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", "K"])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def run(graph: bytes, x):
    """By the definition of the operators, because runtimes may change the precision."""
    return ReferenceEvaluator(load_model_from_string(graph)).run(None, {"x": x})[0]


def round_half_to_even(value: float) -> int:
    return round(value)


def stored(column, widest: float) -> tuple[list[int], float]:
    """One output channel in steps of ``widest / 127``."""
    scale = widest / 127 or 1.0
    return [round_half_to_even(float(value) / scale) for value in column], scale


def largest_weight(column) -> float:
    return max(abs(float(value)) for value in column)


def largest_pair(column) -> float:
    """The largest sum of the weights of one sign in two neighbouring rows."""
    pairs = [column[row : row + 2] for row in range(0, len(column), 2)]
    above = max(sum(float(value) for value in pair if value > 0) for pair in pairs)
    below = max(sum(-float(value) for value in pair if value < 0) for pair in pairs)
    return max(above, below)


def activations(x) -> tuple[list[list[int]], float, int]:
    """DynamicQuantizeLinear of ONNX: unsigned, with an exact value for zero."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255 or 1.0
    zero = min(max(round_half_to_even(-low / scale), 0), 255)
    rows = [
        [min(max(round_half_to_even(float(v) / scale) + zero, 0), 255) for v in row] for row in x
    ]
    return rows, scale, zero


def literal_dynamic(x, weights):
    rows, x_scale, zero = activations(x)
    out = np.empty((len(x), weights.shape[1]))
    for j in range(weights.shape[1]):
        column, scale = stored(weights[:, j], largest_pair(weights[:, j]))
        for i, row in enumerate(rows):
            total = sum((a - zero) * b for a, b in zip(row, column, strict=True))
            out[i, j] = total * x_scale * scale
    return out


def literal_weights(x, weights):
    columns = [stored(column, largest_weight(column)) for column in weights.T]
    widened = np.array([[value * scale for value in column] for column, scale in columns]).T
    return x.astype(np.float64) @ widened


@given(seed=st.integers(0, 1000), rows=st.integers(1, 4), spread=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize(
    ("int8", "twin"),
    [(Int8(), literal_dynamic), (Int8(activations="fp32"), literal_weights)],
    ids=["dynamic", "fp32"],
)
def test_a_product_equals_the_literal_one(int8, twin, seed, rows, spread):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 12)).astype(np.float32) * np.float32(spread)
    weights = draw.standard_normal((12, 5)).astype(np.float32)
    weights[:, 0] = 0  # a channel of zeros
    wanted = twin(x, weights)
    # If fp32 and exact arithmetic round an activation differently, the products differ, too.
    step = np.ptp(np.append(x, 0)) / 255 * np.abs(weights).max()
    result = run(int8.lower(graph_of(weights)), x)
    np.testing.assert_allclose(result, wanted, atol=2.1 * step)
    assert np.median(np.abs(result - wanted)) <= 1e-3 * step
