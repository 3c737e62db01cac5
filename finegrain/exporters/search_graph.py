"""The search of a gallery in GPU memory as an ONNX graph, which runs after the text tower."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from finegrain.errors import ExportError

MAX_DEPTH = 3840
"""Largest number of results that TensorRT's TopK can select."""


def search_graph(*, embed_dim: int, depth: int, opset: int) -> bytes:
    """A graph that selects the highest fp16 products of queries with a whole gallery.

    Its inputs are ``embeddings`` float32 ``[N, D]``, ``gallery`` float16 ``[C, D]`` and
    ``offsets`` float16 ``[C]``. Its outputs are ``rows`` int32 and ``estimates`` float32, both
    ``[N, depth]``, best first. The offset of a row is added to its products: zero, or minus
    infinity for a row that is empty or excluded.

    The graph has no weights and is separate from the text tower. A gallery that outgrows its
    engine needs only a new engine of this graph, which is built in seconds.

    Args:
        embed_dim: Width of the embeddings, ``D``.
        depth: Number of results per query, from 1 to 3840.
        opset: Opset of the graph.

    Raises:
        ExportError: ``depth`` is not from 1 to 3840.
    """
    if not 1 <= depth <= MAX_DEPTH:
        raise ExportError(
            f"expected a search_depth from 1 to {MAX_DEPTH}, got {depth!r}; 128 is enough for k=10"
        )
    nodes = [
        helper.make_node("Cast", ["embeddings"], ["queries"], to=TensorProto.FLOAT16),
        helper.make_node("Gemm", ["queries", "gallery", "offsets"], ["products"], transB=1),
        helper.make_node("TopK", ["products", "depth"], ["highest", "places"]),
        helper.make_node("Cast", ["highest"], ["estimates"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["places"], ["rows"], to=TensorProto.INT32),
    ]
    inputs = [
        helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", embed_dim]),
        helper.make_tensor_value_info("gallery", TensorProto.FLOAT16, ["C", embed_dim]),
        helper.make_tensor_value_info("offsets", TensorProto.FLOAT16, ["C"]),
    ]
    outputs = [
        helper.make_tensor_value_info("rows", TensorProto.INT32, ["N", depth]),
        helper.make_tensor_value_info("estimates", TensorProto.FLOAT, ["N", depth]),
    ]
    constants = [numpy_helper.from_array(np.array([depth], np.int64), "depth")]
    graph = helper.make_graph(nodes, "search", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    built: bytes = model.SerializeToString()
    return built
