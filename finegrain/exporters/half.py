"""Half precision, written into the graph: every tensor has the type it is computed in.

TensorRT 11 takes precision from the graph alone; 10.12 and TensorRT-RTX do when a network is
strongly typed. Weights and activations become fp16. What stays fp32 is what OpenAI's own half
precision kept (LayerNorm), the arithmetic on pixels before the first product, and everything
after the last one: the L2 norm, and so the embeddings. Softmax stays between its two half
products, where fused attention looks for it and sums in fp32. Ids are never cast:
49406 and 49407 (start and end of text) are one number in fp16.

Converters of other packages cast blocked nodes one by one, fp32 to fp16 and back between
neighbours, which rounds the norm and the embeddings; here a tensor is cast only where its
reader needs another type.

Checked in ONNX Runtime on an x86 CPU, which sums in fp32. Not yet run on a GPU.
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
# Squares are summed in these, or (Resize) an input has to be fp32 by ONNX's definition.
_KEPT = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceL2", "Resize"}
)
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})


@dataclass(frozen=True, kw_only=True)
class Fp16:
    """Weights and activations of 16 bits, for GPUs."""

    name: ClassVar[str] = "fp16"

    min_cosine: float = 0.999

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """The fp16 twin of an fp32 graph: the same inputs, and outputs still fp32.

        Raises:
            ExportError: A weight is beyond fp16, or a node holds a graph (loops, branches).
        """
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph))
        _Halving(model.graph).run()
        # Checked whole: a tensor read in another type than its own fails here, not on a GPU.
        onnx.checker.check_model(model, full_check=True)
        lowered: bytes = model.SerializeToString()
        return lowered


class _Halving:
    """One pass over the nodes, which ONNX keeps in the order they run in."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.kept = _kept_nodes(graph)
        self.weights = {weight.name: weight for weight in graph.initializer}
        # The type that each float tensor has now, and the casts of it that were made.
        self.types = {value.name: FLOAT for value in _float_values(graph)}
        self.types |= {w.name: FLOAT for w in graph.initializer if w.data_type == FLOAT}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for position, node in enumerate(self.graph.node):
            wanted = FLOAT if position in self.kept else HALF
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
        """The name of a tensor in another type; made at its first reader."""
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


def _kept_nodes(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes that stay fp32."""
    kept = {i for i, node in enumerate(graph.node) if node.op_type in _KEPT}
    pixels = {value.name for value in graph.input if _type(value) in (TensorProto.UINT8, FLOAT)}
    for i, node in enumerate(graph.node):
        if node.op_type not in _PRODUCTS and pixels.intersection(node.input):
            kept.add(i)
            pixels.update(node.output)
    outputs = {value.name for value in graph.output}
    kept.update(i for i, node in enumerate(graph.node) if outputs.intersection(node.output))
    return kept | tail(graph, outputs)


def tail(graph: onnx.GraphProto, outputs: Collection[str]) -> set[int]:
    """Positions of the nodes between the last products and some outputs."""
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
    # The exporter masks attention with fp32's least number; fp16's own does the same.
    values = np.where(values == np.finfo(np.float32).min, np.finfo(np.float16).min, values)
    with np.errstate(over="ignore"):  # looked for in the next line
        halved = values.astype(np.float16)
    lost = np.isinf(halved) & np.isfinite(values)
    if lost.any():
        raise ExportError(
            f"{weight.name} holds {float(values[lost].flat[0]):g}, and fp16 ends at 65504; "
            "export this model in fp32"
        )
    return numpy_helper.from_array(halved, name)


def _halve_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise ExportError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own, which has no "
                "fp16 twin here; export this model in fp32"
            )
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_halved_weight(attribute.t, attribute.t.name))
