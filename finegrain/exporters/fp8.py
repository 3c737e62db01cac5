"""FP8 products: E4M3 values and their scales, written into the graph as Q/DQ pairs.

All linear layers except the last one are computed in 8 bits; they are over nine tenths of the
arithmetic of ViT-B/16. Their inputs and weights pass through ``QuantizeLinear`` and
``DequantizeLinear``, which TensorRT replaces by a kernel of 8 bits. Everything else stays as
:class:`~finegrain.exporters.half.Fp16` leaves it: the products inside attention, the norms, the
patches, and the last projection. The last projection is small, and no layer after it would average
out its rounding.

A weight matrix has one scale. E4M3 is a floating-point format with the same relative step over 15
octaves: one scale per channel changes the matrices of a trained text tower by 2.58 %, and one
scale per matrix by 2.65 %. TensorRT is known to fuse the product only if both scales are scalars.
A scale is a power of two, which rounds nothing. Calibration only has to find the largest value.

On a CPU, ONNX Runtime computes the Q/DQ pairs as they are defined, between products in fp16. The
parity check therefore covers the rounding to 8 bits, but not the order in which a GPU sums.
TensorRT-RTX builds engines from these graphs for Ada and Blackwell, and rejects them for Turing
and Ampere, which have no FP8. The graphs were not yet run on a GPU.
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
"""The largest number of E4M3 as ONNX and NVIDIA define it, without infinities."""
SMALLEST_SCALE = 2.0**-14
"""The smallest normal number of fp16. TensorRT takes the reciprocal, which must also be normal."""
HEADROOM = 2.0
"""How far an activation may exceed calibration: one of 15 octaves costs less than clipping."""
OPSET = 21
"""The first opset that can reshape and transpose E4M3, which runtimes do to move Q and DQ."""


@dataclass(frozen=True, kw_only=True)
class Fp8:
    """Linear layers in 8 bits (E4M3), for GPUs of compute capability 8.9 and later.

    Attributes:
        min_cosine: Smallest cosine between an exported embedding and its eager twin. An E4M3
            value is off by 2.6 % (RMS), and a product by about 4 %. After the 48 products of
            twelve blocks, the smallest cosine of ViT-B/16 with random weights is 0.992 for texts
            and 0.999 for pictures. The bound is lower to allow for unusual captions, and higher
            than the cosine that a wrong scale gives.
    """

    name: ClassVar[str] = "fp8"

    min_cosine: float = 0.97

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """Convert an fp32 graph to fp8.

        Args:
            graph: An ONNX graph of opset 21 or later.
            batches: Inputs to measure the scales of activations with.

        Raises:
            ExportError: There are no batches, or the graph has an older opset, has no linear
                layer, or overflows fp16.
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
    """The smallest power of two, from 2**-14 up, that divides ``largest`` to 448 or less.

    >>> scale_of(448.0), scale_of(449.0)
    (1.0, 2.0)
    """
    if largest <= LARGEST * SMALLEST_SCALE:
        return SMALLEST_SCALE
    return 2.0 ** math.ceil(math.log2(largest / LARGEST))


def to_e4m3(values: NDArray[np.floating], name: str) -> TensorProto:
    """Values rounded to the nearest E4M3 number, ties to even. Magnitudes are at most 448."""
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
            "expected captions and pictures to measure the scales of fp8 activations with, got "
            "none; export with a dataset: --data RECIPE"
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
            f"set opset={OPSET} in the profile"
        )


def _is_matrix(weight: TensorProto) -> bool:
    return weight.data_type == TensorProto.FLOAT16 and len(weight.dims) == 2


def _products(graph: onnx.GraphProto, weights: Mapping[str, TensorProto]) -> set[int]:
    """Positions of all linear layers except the last one before the embeddings.

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
            "expected a tower with two linear layers or more, got no linear layer before its last "
            "one, so fp8 would change nothing; set Fp16() for this tower in the profile"
        )
    return products


class _Quantising:
    """One pass over the nodes that inserts Q/DQ pairs before the products."""

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
        weights = [weight for weight in self.graph.initializer if weight.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*weights, *self.stored])

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
