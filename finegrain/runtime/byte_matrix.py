"""Products of a matrix of signed bytes with queries, by ONNX Runtime.

ONNX Runtime selects a kernel for the processor, and copies constant weights into the layout that
this kernel reads fastest. Its product of bytes reads the matrix once for several queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Bytes = NDArray[np.int8]
Sums = NDArray[np.int32]

LARGEST = 63
"""Largest absolute value of a query's numbers.

x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits, which
saturates at 32,767. ONNX Runtime passes a query as unsigned bytes, here from 1 to 127, so two
products are at most ``2 * 127 * 128 = 32,512``. The results are therefore exact everywhere."""

_ZERO_POINT = LARGEST + 1
_INT8, _UINT8, _INT32 = 3, 2, 6  # numbers of types in ONNX

_buffers: list[NDArray[np.int8]] = []
"""Memory for weights while a session copies them. Taking and returning it needs no lock."""


class ByteMatrix:
    """Signed bytes ``[D, N]``, which are multiplied with queries.

    The matrix takes one byte per number, and a few kilobytes. Any number of threads may multiply
    at once. It has no threads of its own, so a forked process may use it.

    Args:
        shape: ``D`` and ``N``, both positive.
        fill: Writes the numbers into the array ``[D, N]`` that it is given, whose previous content
            is arbitrary.
    """

    def __init__(self, shape: tuple[int, int], fill: Callable[[Bytes], None]) -> None:
        size = shape[0] * shape[1]
        self.num_bytes = size
        """Bytes of the numbers."""
        buffer = _buffers.pop() if _buffers else np.empty(0, np.int8)
        if len(buffer) < size:
            # Each session refers to its buffer for ever, so there must be few that are too small.
            buffer = np.empty(1 << (size - 1).bit_length(), np.int8)
        weights = buffer[:size].reshape(shape)
        fill(weights)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # The arena rounds 8 MiB and a bit up to 16.
        options.enable_cpu_mem_arena = False
        # The cache of memory patterns has a lock, which a forked process might inherit locked.
        options.enable_mem_pattern = False
        # The session keeps a reference to this array, and its own copy for the kernel. The array
        # is therefore shared by all matrices, which would otherwise take two bytes per number.
        options.add_external_initializers(
            ["weights"], [onnxruntime.OrtValue.ortvalue_from_numpy(weights)]
        )
        self._session = onnxruntime.InferenceSession(
            _graph(*shape), options, providers=["CPUExecutionProvider"]
        )
        _buffers.append(buffer)

    def products(self, queries: Bytes) -> Sums:
        """Inner products ``[Q, N]`` with queries ``[Q, D]`` of numbers from -63 to 63."""
        shifted = (queries + np.int8(_ZERO_POINT)).view(np.uint8)
        (sums,) = self._session.run(None, {"queries": shifted})
        return np.asarray(sums, np.int32)


@cache
def copies_weights() -> bool:
    """Whether ONNX Runtime copies weights, so that :class:`ByteMatrix` works on this processor.

    This multiplies, overwrites the shared array and multiplies again. It does not look up the
    processor, because the result depends on the kernel that ONNX Runtime selects.
    """
    random = np.random.default_rng(0)
    queries = random.integers(-LARGEST, LARGEST + 1, (3, 80), np.int8)
    expected = random.integers(-128, 128, (80, 200), np.int8)

    def fill(weights: Bytes) -> None:
        weights[:] = expected

    def overwrite(weights: Bytes) -> None:
        weights[:] = 1

    matrix = ByteMatrix(expected.shape, fill)
    ByteMatrix(expected.shape, overwrite)
    sums = matrix.products(queries)
    return bool((sums == queries.astype(np.int32) @ expected.astype(np.int32)).all())


def _graph(width: int, rows: int) -> bytes:
    """An ONNX model that multiplies ``queries`` by ``weights``, which are given separately.

    The serving wing does without the package ``onnx``. A test compares this with its model.
    """
    weights = (
        _number(1, width) + _number(1, rows) + _number(2, _INT8) + _text(8, "weights")
        + _bytes(13, _text(1, "location") + _text(2, "weights")) + _number(14, 1)
    )  # fmt: skip
    zero_point = _number(2, _UINT8) + _text(8, "zero") + _bytes(9, bytes([_ZERO_POINT]))
    node = b"".join(_text(1, name) for name in ("queries", "weights", "zero"))
    node += _text(2, "sums") + _text(4, "MatMulInteger")
    graph = (
        _bytes(1, node) + _text(2, "products") + _bytes(5, weights) + _bytes(5, zero_point)
        + _bytes(11, _tensor("queries", _UINT8, width)) + _bytes(12, _tensor("sums", _INT32, rows))
    )  # fmt: skip
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 10))


def _tensor(name: str, kind: int, columns: int) -> bytes:
    shape = _bytes(1, _text(2, "Q")) + _bytes(1, _number(1, columns))
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    """A field of Protocol Buffers that holds a number."""
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
