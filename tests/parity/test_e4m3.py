"""E4M3 and its products compared with the definition, one number at a time, from the bits."""

from __future__ import annotations

import numpy as np
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from finegrain.exporters.fp8 import Fp8, to_e4m3

BIAS, MANTISSA = 7, 3


def value_of(byte: int) -> float:
    """Sign, four bits of exponent, three of mantissa; all ones is not a number."""
    sign, exponent, mantissa = byte >> 7, byte >> MANTISSA & 0b1111, byte & 0b111
    if exponent == 0b1111 and mantissa == 0b111:
        return float("nan")
    fraction = mantissa / 2**MANTISSA + (1 if exponent else 0)
    return (-1) ** sign * fraction * 2.0 ** (max(exponent, 1) - BIAS)


POSITIVE = [(value_of(byte), byte) for byte in range(127)]


def nearest(value: float) -> tuple[float, int]:
    """The nearest value and its bits; of two equally near, the one with a last bit of zero."""
    magnitude = abs(value)
    result, byte = min(POSITIVE, key=lambda pair: (abs(pair[0] - magnitude), pair[1] & 1))
    return (-result, byte | 128) if np.signbit(value) else (result, byte)


@given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_values_round_to_the_nearest(values):
    stored = to_e4m3(np.array(values, np.float32), "w")
    assert list(stored.raw_data) == [nearest(value)[1] for value in values]
    assert stored.dims == [len(values)]


def test_values_of_the_format_are_not_changed():
    every = [value for value, _ in POSITIVE]
    assert max(every) == 448
    assert list(to_e4m3(np.array(every, np.float32), "w").raw_data) == list(range(127))


def graph_of(weights) -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "last"], ["z"]),
        helper.make_node("Identity", ["z"], ["y"]),
    ]
    last = np.eye(weights.shape[1], dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(last, "last")],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def power_of_two(largest: float) -> float:
    scale = 2.0**-14
    while largest / scale > 448:
        scale *= 2
    return scale


def rounded(values, scale: float):
    """By the definition of QuantizeLinear: numbers beyond the last value become the last value."""
    inside = [min(max(float(v) / scale, -448.0), 448.0) for v in np.ravel(values)]
    return np.array([nearest(v)[0] * scale for v in inside]).reshape(np.shape(values))


@given(
    seed=st.integers(0, 1000),
    grown=st.sampled_from([0.01, 1.0, 1.9, 3.0]),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_product_equals_the_literal_one(seed, grown, spread):
    """``grown`` is the ratio of an activation to its maximum in calibration; above 2 it may be
    clipped."""
    draw = np.random.default_rng(seed)
    seen = (draw.standard_normal((3, 12)) * spread).astype(np.float16).astype(np.float32)
    x = (seen * grown).astype(np.float16)
    weights = draw.standard_normal((12, 5)).astype(np.float16).astype(np.float32)
    x_step = power_of_two(2 * float(np.abs(seen).max()))
    wanted = rounded(x, x_step) @ rounded(weights, power_of_two(float(np.abs(weights).max())))
    graph = Fp8().lower(graph_of(weights), [{"x": seen}])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": x.astype(np.float32)})[0]
    # The remaining error is the rounding of sums to fp16.
    lost = np.abs(wanted).max() * 2.0**-9 + 2.0**-23
    np.testing.assert_allclose(result, wanted, atol=lost)
