"""Products with a matrix of bytes in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from finegrain.runtime.byte_matrix import LARGEST, ByteMatrix, _graph, copies_weights

pytestmark = pytest.mark.skipif(
    not copies_weights(), reason="ONNX Runtime does not copy weights on this processor"
)


def matrix_of(weights: np.ndarray) -> ByteMatrix:
    def fill(buffer: np.ndarray) -> None:
        buffer[:] = weights

    return ByteMatrix(weights.shape, fill)


def product(queries: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return queries.astype(np.int64) @ weights.astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 140),
    rows=st.integers(1, 300),
    num_queries=st.integers(1, 18),
    extreme=st.booleans(),
)
def test_products_are_exact(seed, width, rows, num_queries, extreme):
    random = np.random.default_rng(seed)
    queries = random.integers(-LARGEST, LARGEST + 1, (num_queries, width), np.int8)
    weights = random.integers(-128, 128, (width, rows), np.int8)
    if extreme:  # with one more bit in the query, a sum of two products would saturate 16 bits
        queries = np.where(queries < 0, -LARGEST, LARGEST).astype(np.int8)
        weights = np.where(weights < 0, -128, 127).astype(np.int8)
    sums = matrix_of(weights).products(queries)
    np.testing.assert_array_equal(sums, product(queries, weights))


def test_matrices_do_not_share_memory():
    random = np.random.default_rng(0)
    queries = random.integers(-LARGEST, LARGEST + 1, (2, 64), np.int8)
    weights = [random.integers(-128, 128, (64, rows), np.int8) for rows in (500, 7, 500, 900)]
    matrices = [matrix_of(one) for one in weights]
    for matrix, one in zip(matrices, weights, strict=True):
        np.testing.assert_array_equal(matrix.products(queries), product(queries, one))


def test_the_graph_equals_one_written_by_onnx():
    weights = TensorProto(name="weights", data_type=TensorProto.INT8, dims=[512, 300])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["queries", "weights", "zero"], ["sums"])],
        "products",
        [helper.make_tensor_value_info("queries", TensorProto.UINT8, ["Q", 512])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, ["Q", 300])],
        [weights, numpy_helper.from_array(np.array(LARGEST + 1, np.uint8), "zero")],
    )
    opset = helper.make_opsetid("", 10)
    opset.ClearField("domain")
    expected = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    assert onnx.ModelProto.FromString(_graph(512, 300)) == expected
