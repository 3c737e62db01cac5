"""Int8 weights, and int8 products where the runtime wants them spelled out.

A weight matrix is stored per output channel and the token table per token: one scale for a
whole matrix would give the finest row the step of the coarsest. Attention, norms, convolutions
and the embeddings' length stay fp32, and ids are never cast.

**No product saturates.** x86 processors before VNNI multiply unsigned by signed bytes in pairs
(``vpmaddubsw``): the products of two neighbouring rows of a weight matrix are added in 16 signed
bits, where what is above 32,767 is cut off. Activations are at most 255, so a pair of weights is
safe where those above zero sum to at most 128, and those below zero to at least -128. Each channel
is scaled by its largest pair instead of by its largest weight, which guarantees that. Seven-bit
weights guarantee it too, with half as much error again: two large neighbours of one sign are rare.
``benchmarks/int8_kinds.py`` compares these and other ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters.precision import Batches

T = TypeVar("T", np.float32, np.int64)

LIMIT = 127
"""Symmetric: -128 is not used, so that zero is exactly zero."""

MAX_PAIR = 128
"""Largest sum of the weights of one sign in a pair of neighbouring rows: 255 * 128 is below
32,767, the largest number of 16 signed bits."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Weights of 8 bits.

    Attributes:
        activations: ``dynamic`` writes integer products into the graph, which quantise their
            input as they run, by one scale for the whole batch. This is what ONNX Runtime has
            kernels for. ``fp32`` stores weights in 8 bits and leaves the arithmetic to the
            runtime: OpenVINO quantises the inputs of such products by itself, and finer; it
            does so only on processors whose products do not saturate.
    """

    activations: Literal["dynamic", "fp32"] = "dynamic"
    min_cosine: float = 0.99

    @property
    def name(self) -> str:
        """As the manifest states it; plans of finegrain 0.1 state ``int8`` for products that may
        saturate, which a runtime has to prevent."""
        return "int8_pairs" if self.activations == "dynamic" else "int8"

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """The int8 twin of an fp32 graph; itself where there is no matrix in it.

        Raises:
            ExportError: A product of the graph could saturate.
        """
        model = onnx.load_model_from_string(graph)
        quantising = _Quantising(model.graph, dynamic=self.activations == "dynamic")
        quantising.run()
        if not quantising.stored:
            return graph
        for weight, pair in largest_pairs(model.graph).items():
            if pair > MAX_PAIR:
                raise ExportError(
                    f"expected pairs of weights of at most {MAX_PAIR} in {weight}, got {pair}: "
                    "their products saturate on processors without VNNI. Export in fp32, and "
                    "report this as a bug of finegrain."
                )
        lowered: bytes = model.SerializeToString()
        return lowered


def largest_pairs(graph: onnx.GraphProto) -> dict[str, int]:
    """The largest pair of each weight matrix that a ``MatMulInteger`` of a graph multiplies.

    Raises:
        ExportError: A ``MatMulInteger`` multiplies something else than an int8 matrix that is
            stored in the graph; nothing is known of its products.
    """
    stored = {weight.name: weight for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    pairs = {}
    for node in products:
        name = node.input[1]
        if name not in stored or stored[name].data_type != TensorProto.INT8:
            raise ExportError(f"expected an int8 matrix in the graph as {name} of {node.output[0]}")
        values = numpy_helper.to_array(stored[name]).astype(np.int64)
        pairs[name] = int(pair_sums(values).max(initial=0))
    return pairs


def pair_sums(weights: NDArray[T]) -> NDArray[T]:
    """Sums of the weights of one sign in each pair of neighbouring rows.

    ``[K, N]`` gives ``[ceil(K / 2), N]``, the larger of the sums above and below zero, without
    sign. Rows 0 and 1 are a pair, rows 2 and 3 the next; kernels fill an odd ``K`` up with zeros.
    """
    padded = np.pad(weights, ((0, len(weights) % 2), (0, 0)))
    first, second = padded[0::2], padded[1::2]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.minimum(first, 0) + np.minimum(second, 0)
    sums: NDArray[T] = np.maximum(above, -below)
    return sums


def quantise(
    values: NDArray[np.float32], *, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Int8 values and their scales, symmetric, one scale for each slice across ``axis``.

    ``values`` ``[R, C]`` with ``axis=0`` gives scales ``[1, C]``, with ``axis=1`` ``[R, 1]``.
    """
    return _scaled(values, np.abs(values).max(axis=axis, keepdims=True))


def quantise_pairs(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Int8 weights ``[K, N]`` of a product that cannot saturate, and their scales ``[1, N]``.

    The largest pair of a channel becomes 127, and rounding adds at most 1.
    """
    return _scaled(values, pair_sums(values).max(axis=0, keepdims=True))


def _scaled(
    values: NDArray[np.float32], widest: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Values in steps of ``widest / 127``."""
    # What is below fp32's least number divided by 127 is stored as zero.
    scales = np.where(widest < LIMIT * np.finfo(np.float32).tiny, 1, widest / LIMIT)
    scales = scales.astype(np.float32)
    return np.rint(values / scales).clip(-LIMIT, LIMIT).astype(np.int8), scales


class _Quantising:
    """One pass over the nodes, replacing those that read a weight matrix or the token table."""

    def __init__(self, graph: onnx.GraphProto, *, dynamic: bool) -> None:
        self.graph = graph
        self.dynamic = dynamic
        self.weights = {
            weight.name: weight
            for weight in graph.initializer
            if weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2
        }
        self.stored: dict[str, TensorProto] = {}

    def run(self) -> None:
        nodes = [lowered for node in self.graph.node for lowered in self._lowered(node)]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [weight for weight in self.graph.initializer if weight.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.stored.values()])

    def _lowered(self, node: NodeProto) -> Iterator[NodeProto]:
        if node.op_type == "Gather" and node.input[0] in self.weights:
            yield from self._rows(node)
        elif node.op_type == "MatMul" and node.input[1] in self.weights:
            yield from self._product(node.input[0], node.input[1], node.output[0])
        elif _is_linear(node) and node.input[1] in self.weights:
            out, bias = node.output[0], list(node.input[2:])
            product = f"{out}_product" if bias else out
            transposed = bool(_attribute(node, "transB", 0))
            yield from self._product(node.input[0], node.input[1], product, transposed=transposed)
            if bias:
                yield helper.make_node("Add", [product, *bias], [out])
        else:
            yield node

    def _rows(self, node: NodeProto) -> Iterator[NodeProto]:
        """Rows of a table: stored with one scale a row, and widened after they are picked."""
        (table, ids), out = node.input, node.output[0]
        values, scales = quantise(self._values(table), axis=1)
        self._store(f"{table}_int8", values)
        self._store(f"{table}_scale", scales)
        yield helper.make_node("Gather", [f"{table}_int8", ids], [f"{out}_int8"])
        yield helper.make_node("Gather", [f"{table}_scale", ids], [f"{out}_scale"])
        yield helper.make_node("Cast", [f"{out}_int8"], [f"{out}_wide"], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [f"{out}_wide", f"{out}_scale"], [out])

    def _product(
        self, x: str, weight: str, out: str, *, transposed: bool = False
    ) -> Iterator[NodeProto]:
        """``x @ weight`` with one scale an output channel."""
        values = self._values(weight)
        values = values.T if transposed else values
        quantised, scales = quantise_pairs(values) if self.dynamic else quantise(values, axis=0)
        self._store(f"{weight}_int8", quantised)
        self._store(f"{weight}_scale", scales[0])
        if not self.dynamic:
            stored = [f"{weight}_int8", f"{weight}_scale"]
            yield helper.make_node("DequantizeLinear", stored, [f"{out}_weight"], axis=1)
            yield helper.make_node("MatMul", [x, f"{out}_weight"], [out])
            return
        # In this order ONNX Runtime makes one node of the five.
        q, scale, zero = (f"{out}_{part}" for part in ("x_int8", "x_scale", "x_zero"))
        both, total, wide = (f"{out}_{part}" for part in ("scale", "total", "wide"))
        yield helper.make_node("DynamicQuantizeLinear", [x], [q, scale, zero])
        yield helper.make_node("MatMulInteger", [q, f"{weight}_int8", zero], [total])
        yield helper.make_node("Cast", [total], [wide], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [scale, f"{weight}_scale"], [both])
        yield helper.make_node("Mul", [wide, both], [out])

    def _values(self, weight: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = numpy_helper.to_array(self.weights[weight])
        return values

    def _store(self, name: str, values: NDArray[np.generic]) -> None:
        self.stored[name] = numpy_helper.from_array(values, name)


def _is_linear(node: NodeProto) -> bool:
    """Whether a Gemm is ``x @ weight``, with a bias or without, and nothing more."""
    plain = (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    return node.op_type == "Gemm" and all(_attribute(node, n, v) == v for n, v in plain)


def _attribute(node: NodeProto, name: str, default: float) -> float:
    values = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return float(values[0]) if values else default
