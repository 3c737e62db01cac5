"""Half precision, written into the graph: every tensor has the type that it is computed in.

TensorRT 11 takes the precision from the graph alone; TensorRT 10.12 and TensorRT-RTX do so for
strongly typed networks. Weights and activations become fp16. Three parts stay fp32: LayerNorm, as
in OpenAI's half-precision CLIP; the arithmetic on pixels before the first product; and everything
after the last product, which includes the L2 norm and the embeddings. Softmax stays fp16 between
its two products, so that fused attention recognises it; fused attention sums in fp32. Ids are
never cast: 49406 and 49407 (start and end of text) are the same number in fp16.

Converters of other packages cast every blocked node separately, from fp32 to fp16 and back
between neighbours, which rounds the norm and the embeddings. Here a tensor is cast only where a
node reads it in another type.

The graphs were checked in ONNX Runtime on an x86 CPU, which sums in fp32. They were not yet run on
a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters.precision import Batches

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_SUFFIX: dict[int, str] = {FLOAT: "fp32", HALF: "fp16"}
# These sum squares, or (Resize) have an input that ONNX defines as fp32.
_FP32_TYPES = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceL2", "Resize"}
)
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})


@dataclass(frozen=True, kw_only=True)
class Fp16:
    """Weights and activations in 16 bits, for GPUs."""

    name: ClassVar[str] = "fp16"

    min_cosine: float = 0.999

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """Convert an fp32 graph to fp16. Its inputs and its fp32 outputs stay the same.

        Raises:
            ExportError: A weight is outside the range of fp16, or a node contains a graph (loops,
                branches).
        """
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph))
        _Halving(model.graph).run()
        # The full check finds tensors that are read in a wrong type, before a GPU does.
        onnx.checker.check_model(model, full_check=True)
        lowered: bytes = model.SerializeToString()
        return lowered


class _Halving:
    """One pass over the nodes, which ONNX stores in the order of execution."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.fp32_nodes = _fp32_nodes(graph)
        self.weights = {weight.name: weight for weight in graph.initializer}
        # The present type of each float tensor, and its casts so far.
        self.types = {value.name: FLOAT for value in _float_values(graph)}
        self.types |= {w.name: FLOAT for w in graph.initializer if w.data_type == FLOAT}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for position, node in enumerate(self.graph.node):
            wanted = FLOAT if position in self.fp32_nodes else HALF
            for i, name in enumerate(node.input):
                if self.types.get(name, wanted) != wanted:
                    node.input[i] = self._cast(name, wanted)
            if wanted == HALF:
                _halve_attributes(node)
            self.types |= {name: wanted for name in node.output if name in self.types}
            self.nodes.append(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self._drop_unread_weights()

    def _cast(self, name: str, wanted: int) -> str:
        """The name of a tensor's cast to another type. It is inserted before its first reader."""
        if (name, wanted) not in self.casts:
            twin = f"{name}_{_SUFFIX[wanted]}"
            if name in self.weights:
                self.graph.initializer.append(_halved_weight(self.weights[name], twin))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [twin], name=twin, to=wanted))
            self.casts[name, wanted] = twin
        return self.casts[name, wanted]

    def _drop_unread_weights(self) -> None:
        read = {name for node in self.nodes for name in node.input}
        needed = [weight for weight in self.graph.initializer if weight.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(needed)


def _fp32_nodes(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes that stay fp32."""
    positions = {i for i, node in enumerate(graph.node) if node.op_type in _FP32_TYPES}
    pixels = {value.name for value in graph.input if _type(value) in (TensorProto.UINT8, FLOAT)}
    for i, node in enumerate(graph.node):
        if node.op_type not in _PRODUCTS and pixels.intersection(node.input):
            positions.add(i)
            pixels.update(node.output)
    outputs = {value.name for value in graph.output}
    positions.update(i for i, node in enumerate(graph.node) if outputs.intersection(node.output))
    return positions | tail(graph, outputs)


def tail(graph: onnx.GraphProto, outputs: Collection[str]) -> set[int]:
    """Positions of the nodes between the last products and ``outputs``."""
    after: set[int] = set()
    results = set(outputs)
    for i, node in reversed(list(enumerate(graph.node))):
        if node.op_type not in _PRODUCTS and results.intersection(node.output):
            after.add(i)
            results.update(node.input)
    return after


def _type(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _float_values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        if _type(value) == FLOAT:
            yield value


def _halved_weight(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(weight)
    # PyTorch's exporter masks attention with the lowest fp32 number; use the lowest fp16 number.
    values = np.where(values == np.finfo(np.float32).min, np.finfo(np.float16).min, values)
    with np.errstate(over="ignore"):  # the next line checks for overflow
        halved = values.astype(np.float16)
    lost = np.isinf(halved) & np.isfinite(values)
    if lost.any():
        raise ExportError(
            f"expected weights that fit fp16, got {float(values[lost].flat[0]):g} in "
            f"{weight.name}, and fp16 ends at 65504; export this model in fp32"
        )
    return numpy_helper.from_array(halved, name)


def _halve_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise ExportError(
                f"node {node.name!r} ({node.op_type}) contains a graph, which cannot be converted "
                "to fp16; export this model in fp32"
            )
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_halved_weight(attribute.t, attribute.t.name))
