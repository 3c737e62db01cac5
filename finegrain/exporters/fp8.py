"""FP8 products: E4M3 values and their scales, written into the graph as Q/DQ pairs.

What is computed in 8 bits are the linear layers but the last: of ViT-B/16 over nine tenths of the
arithmetic. Their inputs and weights go through ``QuantizeLinear`` and ``DequantizeLinear``, which
TensorRT takes away by choosing a kernel of 8 bits. All else is as
:class:`~finegrain.exporters.half.Fp16` leaves it: attention's own products, the norms, the
patches, and the last projection, which is small and whose rounding nothing would soften.

One scale serves a whole weight matrix. E4M3 is a float, with the same relative step over 15
octaves: a scale for each channel leaves the matrices of a trained text tower off by 2.58 % and
one for all by 2.65 %, and TensorRT is known to fuse the product only where both scales are
scalars. For the same reason a scale is a power of two, which rounds nothing, and the largest
value seen is all that calibration has to find.

On a CPU ONNX Runtime computes the pairs as they are defined, between products of fp16: the
parity check sees the rounding to 8 bits, and not the order in which a GPU sums. TensorRT-RTX
builds engines of it for Ada and Blackwell and refuses Turing and Ampere, which have no FP8.
Not yet run on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters.half import Fp16, tail
from finegrain.exporters.precision import Batches

LARGEST = 448.0
"""Of E4M3 as ONNX and NVIDIA define it: no infinities."""
SMALLEST_SCALE = 2.0**-14
"""The least normal number of fp16; TensorRT takes the reciprocal, which has to be one too."""
HEADROOM = 2.0
"""What an activation may grow beyond calibration: one octave of 15 is cheap, clipping is not."""
OPSET = 21
"""The first in which ONNX reshapes and transposes E4M3, as runtimes do that move Q and DQ about."""


@dataclass(frozen=True, kw_only=True)
class Fp8:
    """Linear layers of 8 bits (E4M3), for GPUs of compute capability 8.9 and later.

    Attributes:
        min_cosine: An E4M3 value is off by 2.6 % (RMS), a product by some 4 %. Over the 48
            products of twelve blocks that leaves 0.992 of the text tower of ViT-B/16 and 0.999
            of its image tower, with random weights, the least of any embedding. The bound is
            below that for captions that are unlike all others, and above what a wrong scale
            leaves.
    """

    name: ClassVar[str] = "fp8"

    min_cosine: float = 0.97

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """The fp8 twin of an fp32 graph.

        Args:
            graph: Of opset 21 or later.
            batches: What the scales of activations are measured on.

        Raises:
            ExportError: There is nothing to calibrate on, the graph is of an older opset, has
                no linear layer, or overflows fp16.
        """
        model = onnx.load_model_from_string(Fp16().lower(graph))
        _require_opset(model)
        weights = {w.name: w for w in model.graph.initializer if _is_matrix(w)}
        products = _products(model.graph, weights)
        activations = sorted({model.graph.node[i].input[0] for i in products})
        largest = largest_values(model, activations, batches)
        _Quantising(model.graph, weights, largest).run(products)
        onnx.checker.check_model(model, full_check=True)
        lowered: bytes = model.SerializeToString()
        return lowered


def scale_of(largest: float) -> float:
    """The power of two that brings ``largest`` to E4M3's last octave but no further."""
    if largest <= LARGEST * SMALLEST_SCALE:
        return SMALLEST_SCALE
    return 2.0 ** math.ceil(math.log2(largest / LARGEST))


def to_e4m3(values: NDArray[np.floating], name: str) -> TensorProto:
    """Values rounded to the nearest of E4M3, ties to even; none may be beyond 448."""
    rounded = torch.from_numpy(np.asarray(values, np.float32)).to(torch.float8_e4m3fn)
    raw = rounded.view(torch.uint8).numpy().tobytes()
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, raw, raw=True)


def largest_values(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Batches
) -> dict[str, float]:
    """Largest magnitude of each tensor over all batches.

    Raises:
        ExportError: There are no batches, or a value is not finite.
    """
    measured = onnx.ModelProto()
    measured.CopyFrom(model)
    tops = [f"{tensor}_largest" for tensor in tensors]
    for tensor, top in zip(tensors, tops, strict=True):
        magnitude = f"{tensor}_magnitude"
        measured.graph.node.append(helper.make_node("Abs", [tensor], [magnitude]))
        measured.graph.node.append(helper.make_node("ReduceMax", [magnitude], [top], keepdims=0))
        measured.graph.output.append(helper.make_tensor_value_info(top, TensorProto.FLOAT16, []))
    session = onnxruntime.InferenceSession(
        measured.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    seen = [np.array(session.run(tops, dict(batch)), np.float64) for batch in batches]
    if not seen:
        raise ExportError(
            "fp8 takes the scales of activations from real captions and pictures, and none were "
            "given; export with a dataset: --data RECIPE"
        )
    largest = np.max(seen, axis=0)
    for tensor, value in zip(tensors, largest, strict=True):
        if not np.isfinite(value):
            raise ExportError(
                f"{tensor} reaches {value} in fp16, in which the layers around fp8 are computed; "
                "export this model in fp32"
            )
    return dict(zip(tensors, largest.tolist(), strict=True))


def _require_opset(model: onnx.ModelProto) -> None:
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    if opset < OPSET:
        raise ExportError(
            f"fp8 needs ONNX opset {OPSET} or later, and this graph is of opset {opset}; "
            f"say opset={OPSET} in the profile"
        )


def _is_matrix(weight: TensorProto) -> bool:
    return weight.data_type == TensorProto.FLOAT16 and len(weight.dims) == 2


def _products(graph: onnx.GraphProto, weights: Mapping[str, TensorProto]) -> set[int]:
    """Positions of the linear layers but the last before the embeddings, the first output.

    Raises:
        ExportError: There are none.
    """
    embeddings = graph.output[0].name
    last = {embeddings, *(name for i in tail(graph, [embeddings]) for name in graph.node[i].input)}
    products = {
        i
        for i, node in enumerate(graph.node)
        if node.op_type in ("MatMul", "Gemm")
        and node.input[1] in weights
        and not last.intersection(node.output)
    }
    if not products:
        raise ExportError(
            "this tower has no linear layer before its last, so that fp8 would change nothing; "
            "give it Fp16() in the profile"
        )
    return products


class _Quantising:
    """One pass over the nodes, putting Q/DQ pairs before the products."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        weights: Mapping[str, TensorProto],
        largest: Mapping[str, float],
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.largest = largest
        self.zero = to_e4m3(np.zeros(()), "e4m3_zero")
        self.stored = [self.zero]
        self.nodes: list[NodeProto] = []
        self.rounded: dict[str, str] = {}

    def run(self, products: Collection[int]) -> None:
        for position, node in enumerate(self.graph.node):
            if position in products:
                node.input[0] = self._activation(node.input[0])
                node.input[1] = self._weight(node.input[1])
            self.nodes.append(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input}
        kept = [weight for weight in self.graph.initializer if weight.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.stored])

    def _activation(self, name: str) -> str:
        if name not in self.rounded:
            scale = self._store_scale(name, scale_of(HEADROOM * self.largest[name]))
            values = f"{name}_e4m3"
            self._append("QuantizeLinear", [name, scale, self.zero.name], values)
            self.rounded[name] = self._dequantised(values, scale)
        return self.rounded[name]

    def _weight(self, name: str) -> str:
        if name not in self.rounded:
            values = numpy_helper.to_array(self.weights[name]).astype(np.float32)
            step = scale_of(float(np.abs(values).max()))
            scale = self._store_scale(name, step)
            self.stored.append(to_e4m3(values / np.float32(step), f"{name}_e4m3"))
            self.rounded[name] = self._dequantised(f"{name}_e4m3", scale)
        return self.rounded[name]

    def _store_scale(self, name: str, scale: float) -> str:
        self.stored.append(numpy_helper.from_array(np.array(scale, np.float16), f"{name}_scale"))
        return f"{name}_scale"

    def _dequantised(self, values: str, scale: str) -> str:
        wide = f"{values}_wide"
        self._append("DequantizeLinear", [values, scale, self.zero.name], wide)
        return wide

    def _append(self, operator: str, inputs: list[str], output: str) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output))
