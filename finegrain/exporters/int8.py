"""Int8 weights, and int8 products for runtimes that need them in the graph.

A weight matrix has one scale per output channel, and the token table one per token. With a single
scale for a whole matrix, small rows would lose precision. Attention, norms, convolutions and the
L2 norm of the embeddings stay fp32, and ids are never cast.

**No product saturates.** x86 processors before VNNI multiply unsigned by signed bytes in pairs
(``vpmaddubsw``). The products of two neighbouring rows of a weight matrix are added in 16 signed
bits and clipped at 32,767. Activations are at most 255, so a pair of weights is safe if its
positive weights sum to at most 128 and its negative weights to at least -128. Each channel is
scaled by its largest pair instead of its largest weight, which guarantees this. Weights of seven
bits guarantee it too, with 1.5 times the error, because two large neighbours of one sign are rare.
``benchmarks/int8_kinds.py`` compares these and other schemes.
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
"""Largest magnitude of a value. The range is symmetric, so -128 is not used."""

MAX_PAIR = 128
"""Largest sum of the weights of one sign in a pair of neighbouring rows: 255 * 128 is less than
32,767, the largest signed number of 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Weights in 8 bits.

    Attributes:
        activations: ``dynamic`` writes integer products into the graph, which quantise their
            input at run time with one scale for the whole batch. ONNX Runtime has kernels for
            these. ``fp32`` stores weights in 8 bits and leaves the arithmetic to the runtime.
            OpenVINO then quantises the inputs in smaller groups, and only on processors whose
            products do not saturate.
        min_cosine: Smallest cosine between an exported embedding and its eager twin.
    """

    activations: Literal["dynamic", "fp32"] = "dynamic"
    min_cosine: float = 0.99

    @property
    def name(self) -> str:
        """Name of the precision in the manifest. Plans of finegrain 0.1 have ``int8`` for products
        that may saturate, which a runtime has to prevent."""
        return "int8_pairs" if self.activations == "dynamic" else "int8"

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """Convert an fp32 graph to int8. A graph without a matrix is returned unchanged.

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
        ExportError: A ``MatMulInteger`` does not multiply by an int8 matrix that the graph stores,
            so the bound of its products is unknown.
    """
    stored = {weight.name: weight for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    pairs = {}
    for node in products:
        name = node.input[1]
        if name not in stored or stored[name].data_type != TensorProto.INT8:
            raise ExportError(
                f"expected an int8 matrix in the graph as {name} of {node.output[0]}, got none. "
                "Export in fp32, and report this as a bug of finegrain."
            )
        values = numpy_helper.to_array(stored[name]).astype(np.int64)
        pairs[name] = int(pair_sums(values).max(initial=0))
    return pairs


def pair_sums(weights: NDArray[T]) -> NDArray[T]:
    """Sums of the weights of one sign in each pair of neighbouring rows.

    Rows 0 and 1 are a pair, and rows 2 and 3 the next one. An odd number of rows is padded with
    zeros, as kernels do.

    Args:
        weights: The matrix, ``[K, N]``.

    Returns:
        The larger magnitude of the positive and the negative sum, ``[ceil(K / 2), N]``.

    >>> pair_sums(np.array([[100, -3], [20, -4], [7, 5]]))
    array([[120,   7],
           [  7,   5]])
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
    """Quantise symmetrically with one scale per column or per row.

    Args:
        values: The matrix, ``[R, C]``.
        axis: 0 for one scale per column, and 1 for one scale per row.

    Returns:
        Int8 values ``[R, C]``, and scales ``[1, C]`` or ``[R, 1]``.
    """
    return _scaled(values, np.abs(values).max(axis=axis, keepdims=True))


def quantise_pairs(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise weights to int8 ``[K, N]`` with scales ``[1, N]``, so that no product saturates.

    The largest pair of a channel becomes 127, and rounding adds at most 1.
    """
    return _scaled(values, pair_sums(values).max(axis=0, keepdims=True))


def _scaled(
    values: NDArray[np.float32], widest: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Values in steps of ``widest / 127``."""
    # Channels below 127 times the smallest normal fp32 number get the scale 1 and become zero.
    scales = np.where(widest < LIMIT * np.finfo(np.float32).tiny, 1, widest / LIMIT)
    scales = scales.astype(np.float32)
    return np.rint(values / scales).clip(-LIMIT, LIMIT).astype(np.int8), scales


class _Quantising:
    """One pass over the nodes that replaces readers of weight matrices and of the token table."""

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
        weights = [weight for weight in self.graph.initializer if weight.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*weights, *self.stored.values()])

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
        """Rows of a table that has one scale per row and is dequantised after the gather."""
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
        """``x @ weight`` with one scale per output channel."""
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
        # ONNX Runtime fuses the five nodes into one if they are in this order.
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
    """Whether a node is a Gemm that computes ``x @ weight``, with or without a bias."""
    plain = (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    return node.op_type == "Gemm" and all(_attribute(node, n, v) == v for n, v in plain)


def _attribute(node: NodeProto, name: str, default: float) -> float:
    values = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return float(values[0]) if values else default
