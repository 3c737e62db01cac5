"""The search as an ONNX graph: what follows the text tower on the GPU that holds the gallery."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from finegrain.errors import ExportError

MAX_DEPTH = 3840
"""Most results that TensorRT's TopK selects."""


def search_graph(*, embed_dim: int, depth: int, opset: int) -> bytes:
    """Products with all of a gallery in fp16, and the highest of them.

    ``embeddings`` float32 ``[N, D]``, ``gallery`` float16 ``[C, D]`` and ``offsets`` float16
    ``[C]`` to ``rows`` int32 and ``estimates`` float32, both ``[N, depth]``, best first. An
    offset is added to the products of its row: zero, or minus infinity for a row that is none.

    It is a graph of its own, without a weight: a gallery that outgrows its engine needs another
    of these, which is built in seconds, and never another text tower.

    Raises:
        ExportError: ``depth`` is not from 1 to 3840.
    """
    if not 1 <= depth <= MAX_DEPTH:
        raise ExportError(
            f"expected a search_depth from 1 to {MAX_DEPTH}, got {depth!r}; 128 is plenty for k=10"
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
